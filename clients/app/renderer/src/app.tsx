/** The shell of the app: navigation, the screen of the address, the status bar, commands. */

import {
  createEffect,
  createMemo,
  createSignal,
  ErrorBoundary,
  For,
  type JSX,
  lazy,
  Match,
  on,
  onCleanup,
  onMount,
  Suspense,
  Switch,
} from "solid-js";
import { AppProvider, createApp } from "./app-context";
import { Dialog } from "./components/dialog";
import { ErrorPanel } from "./components/error-panel";
import { EmptyState, Waiting } from "./components/states";
import { setTheme, THEMES, theme } from "./design/theme";
import type { Host } from "./host/host";
import { formatRoute, parseRoute, type Route } from "./routes";
import { CommandPalette } from "./shell/command-palette";
import { type Command, generalCommands, KeySequence, PLACES } from "./shell/commands";
import { Icon } from "./shell/icons";
import { Notices } from "./shell/notices";
import { StatusBar } from "./shell/status-bar";
import "./app.css";

const DataScreen = lazy(async () => ({ default: (await import("./screens/data/data-screen")).DataScreen }));
const RunScreen = lazy(async () => ({ default: (await import("./screens/run/run-screen")).RunScreen }));
const RunsScreen = lazy(async () => ({ default: (await import("./screens/runs/runs-screen")).RunsScreen }));
const BacktestScreen = lazy(async () => ({ default: (await import("./screens/live/backtest-screen")).BacktestScreen }));
const SweepForm = lazy(async () => ({ default: (await import("./screens/sweeps/sweep-form")).SweepForm }));
const SweepsScreen = lazy(async () => ({ default: (await import("./screens/sweeps/sweeps-screen")).SweepsScreen }));
const SweepScreen = lazy(async () => ({ default: (await import("./screens/sweeps/sweep-screen")).SweepScreen }));
const CompareScreen = lazy(async () => ({ default: (await import("./screens/compare/compare-screen")).CompareScreen }));
const AlgorithmsScreen = lazy(async () => ({
  default: (await import("./screens/algorithms/algorithms-screen")).AlgorithmsScreen,
}));
const StateScreen = lazy(async () => ({ default: (await import("./screens/state/state-screen")).StateScreen }));
const TopicsScreen = lazy(async () => ({ default: (await import("./screens/topics/topics-screen")).TopicsScreen }));

const TITLES: { readonly [screen in Route["screen"]]: string } = {
  data: "Data",
  run: "Run",
  runs: "Results",
  backtest: "Backtest",
  sweep: "Sweep",
  sweeps: "Sweeps",
  compare: "Compare",
  algorithms: "Algorithms",
  state: "Shared state",
  topics: "Topics",
  unknown: "Not found",
};

/** The whole app on a host. */
export function AppShell(props: { readonly host: Host }): JSX.Element {
  const [route, setRoute] = createSignal(parseRoute(window.location.hash));
  const moved = (): void => {
    setRoute(parseRoute(window.location.hash));
  };
  window.addEventListener("hashchange", moved);
  onCleanup(() => window.removeEventListener("hashchange", moved));
  const go = (to: Route): void => {
    window.location.hash = formatRoute(to);
  };
  const app = createApp(props.host, go);
  const [paletteOpen, setPaletteOpen] = createSignal(false);
  const [helpOpen, setHelpOpen] = createSignal(false);
  let main: HTMLElement | undefined;

  const commands = createMemo((): readonly Command[] => [
    ...generalCommands(go),
    { id: "help", title: "Show the shortcuts", keys: "?", run: () => setHelpOpen(true) },
    ...found(app.catalogue.state(), (one) => ({
      id: `series-${one.symbol}-${one.timeframe}`,
      title: `Series ${one.symbol} ${one.timeframe}`,
      run: () => go({ screen: "data", symbol: one.symbol, timeframe: one.timeframe }),
    })),
    ...found(app.backtests.state(), (one) => ({
      id: `backtest-${one.backtestId}`,
      title: `Backtest ${one.algorithmId.split("@")[0]} ${one.symbol} ${one.backtestId.slice(0, 8)}`,
      run: () => go({ screen: "backtest", id: one.backtestId }),
    })),
  ]);
  listenForKeys(commands, () => setPaletteOpen((open) => !open));

  createEffect(
    on(
      () => formatRoute(route()).split("?")[0],
      () => {
        document.title = `${titleOf(route())} – backtestr`;
        main?.focus({ preventScroll: true }); // a screen reader begins to read the new screen
        main?.scrollTo(0, 0);
      },
      { defer: true },
    ),
  );
  onMount(() => {
    document.title = `${titleOf(route())} – backtestr`;
  });

  return (
    <AppProvider value={app}>
      <button type="button" class="skip-link" onClick={() => main?.focus()}>
        Skip to the content
      </button>
      <div class="shell">
        <nav class="navigation" aria-label="Screens">
          <a class="brand" href="#/data" aria-label="backtestr">
            <span class="brand-mark" aria-hidden="true" />
            <span class="brand-name">backtestr</span>
          </a>
          <ul>
            <For each={PLACES}>
              {(place) => (
                <li>
                  <a
                    class="place"
                    href={formatRoute(place.route)}
                    aria-current={placeOf(route()) === place.name ? "page" : undefined}
                  >
                    <Icon name={place.name} />
                    <span>{place.title}</span>
                  </a>
                </li>
              )}
            </For>
          </ul>
          <div class="navigation-foot">
            <button
              type="button"
              class="place"
              aria-label={`Theme: ${theme()}; change it`}
              onClick={() => setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length] ?? "system")}
            >
              <span class="theme-name">Theme: {theme()}</span>
              <span aria-hidden="true">{{ system: "◐", light: "○", dark: "●" }[theme()]}</span>
            </button>
            <button type="button" class="place palette-opener" onClick={() => setPaletteOpen(true)}>
              <span>Commands</span>
              <kbd>{/Mac/.test(navigator.userAgent) ? "⌘K" : "Ctrl K"}</kbd>
            </button>
          </div>
        </nav>
        <main ref={main} id="main" class="main" tabindex={-1} aria-label={TITLES[route().screen]}>
          <ErrorBoundary fallback={(error, reset) => <Broken error={error} reset={reset} route={route()} />}>
            <Suspense fallback={<Waiting what="the code of this screen" />}>
              <CurrentScreen route={route()} />
            </Suspense>
          </ErrorBoundary>
        </main>
        <StatusBar />
      </div>
      <Notices />
      <CommandPalette open={paletteOpen()} onClose={() => setPaletteOpen(false)} commands={commands()} />
      <Dialog title="Shortcuts" open={helpOpen()} onClose={() => setHelpOpen(false)}>
        <Shortcuts commands={commands()} />
      </Dialog>
    </AppProvider>
  );
}

function CurrentScreen(props: { readonly route: Route }): JSX.Element {
  const of = <Name extends Route["screen"]>(name: Name): Extract<Route, { screen: Name }> | undefined =>
    props.route.screen === name ? (props.route as Extract<Route, { screen: Name }>) : undefined;
  return (
    <Switch fallback={<NotFound />}>
      <Match when={of("data")}>{(at) => <DataScreen symbol={at().symbol} timeframe={at().timeframe} />}</Match>
      <Match when={of("run")}>{(at) => <RunScreen copyOf={at().copyOf} />}</Match>
      <Match when={of("runs")}>
        <RunsScreen />
      </Match>
      {/* A backtest's screen is made anew for each backtest. */}
      <Match when={of("backtest")?.id} keyed>
        {(id) => <BacktestScreen id={id} view={of("backtest")?.view} />}
      </Match>
      <Match when={of("sweep")}>{(at) => <SweepForm copyOf={at().copyOf} />}</Match>
      {/* A sweep's screen is made anew for each sweep. */}
      <Match when={of("sweeps")?.id} keyed>
        {(id) => <SweepScreen id={id} />}
      </Match>
      <Match when={of("sweeps")}>
        <SweepsScreen />
      </Match>
      <Match when={of("compare")}>{(at) => <CompareScreen ids={at().ids} />}</Match>
      <Match when={of("algorithms")}>{(at) => <AlgorithmsScreen algorithm={at().algorithm} />}</Match>
      <Match when={of("state")}>{(at) => <StateScreen key={at().key} />}</Match>
      <Match when={of("topics")}>{(at) => <TopicsScreen topic={at().topic} />}</Match>
    </Switch>
  );
}

function NotFound(): JSX.Element {
  return (
    <EmptyState title="There is no such screen" actions={<a href="#/data">Go to the data</a>}>
      The address {window.location.hash} names none.
    </EmptyState>
  );
}

function Broken(props: { readonly error: unknown; reset(): void; readonly route: Route }): JSX.Element {
  createEffect(on(() => formatRoute(props.route), props.reset, { defer: true }));
  return (
    <div class="screen">
      <ErrorPanel
        error={props.error}
        title="This screen has failed"
        actions={[{ label: "Show it again", run: props.reset }]}
      />
    </div>
  );
}

function Shortcuts(props: { readonly commands: readonly Command[] }): JSX.Element {
  return (
    <dl class="shortcuts">
      <dt>
        <kbd>Ctrl K</kbd>
      </dt>
      <dd>Open or close the commands</dd>
      <For each={props.commands.filter((one) => one.keys !== undefined)}>
        {(one) => (
          <>
            <dt>
              <kbd>{one.keys}</kbd>
            </dt>
            <dd>{one.title}</dd>
          </>
        )}
      </For>
    </dl>
  );
}

function titleOf(route: Route): string {
  if (route.screen === "sweeps" && route.id !== undefined) return `Sweep ${route.id.slice(0, 8)}`;
  return route.screen === "backtest" ? `Backtest ${route.id.slice(0, 8)}` : TITLES[route.screen];
}

function placeOf(route: Route): string {
  return { backtest: "runs", sweep: "sweeps" }[route.screen as string] ?? route.screen;
}

function found<Item>(
  state: { readonly state: string; readonly value?: readonly Item[] },
  make: (item: Item) => Command,
): readonly Command[] {
  return (state.value ?? []).slice(0, 500).map(make);
}

function listenForKeys(commands: () => readonly Command[], toggle: () => void): void {
  const sequence = new KeySequence();
  const keyed = (event: KeyboardEvent): void => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      toggle();
      return;
    }
    const target = event.target as HTMLElement | null;
    const typing = target?.closest("input, textarea, select, [contenteditable], dialog[open]") !== null;
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const command = sequence.press(event.key, event.timeStamp, commands());
    if (command === undefined) return;
    event.preventDefault();
    command.run();
  };
  window.addEventListener("keydown", keyed);
  onCleanup(() => window.removeEventListener("keydown", keyed));
}
