import type { AlgorithmInfo, SeriesInfo } from "@backtestr/client/page";
import {
  createEffect,
  createMemo,
  createSignal,
  For,
  type JSX,
  Match,
  on,
  onCleanup,
  onMount,
  Show,
  Switch,
} from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel, messageOf, OldNote } from "../../components/error-panel";
import { EmptyState } from "../../components/states";
import { WaitingForBroker } from "../../shell/start-broker";
import { failedOf, staleOf, thereOf, waitingOf } from "../../stores/loadable";
import { AlgorithmFields } from "./algorithm-fields";
import { DataFields } from "./data-fields";
import { MoneyFields } from "./money-fields";
import { OptionFields } from "./option-fields";
import { createProbe, ProbeVerdict } from "./probe";
import { RangePreview } from "./range-preview";
import { build, draftOf, type FieldErrors, fieldsOf } from "./run-config";
import { EMPTY_DRAFT, openRunDraft, type RunDraft, withTyped } from "./run-draft";
import { asCommand, asPython } from "./run-text";
import "./run-screen.css";

/** The properties of the parts of the form. */
export interface FormPart {
  readonly draft: RunDraft;
  change(part: Partial<RunDraft>): void;
  /** The reason of a field, of this page or of the broker. */
  errorOf(field: string): string | undefined;
  readonly algorithms: readonly AlgorithmInfo[];
  readonly series: readonly SeriesInfo[];
}

/** The form of a backtest. What is typed is kept for the next visit, and for every other page. */
export function RunScreen(props: { readonly copyOf?: string | undefined }): JSX.Element {
  const app = useApp();
  const draft = openRunDraft(app.drafts);
  const algorithms = createMemo(() => thereOf(app.algorithms.state())?.algorithms ?? []);
  const series = createMemo(() => thereOf(app.catalogue.state()) ?? []);
  const built = createMemo(() => build(draft.value(), algorithms(), series()));
  const [refusal, setRefusal] = createSignal<{ error: unknown; fields: FieldErrors }>();
  const [starting, setStarting] = createSignal(false);
  const [tried, setTried] = createSignal(false);
  const probe = createProbe(app.client, () => built().config, series);
  onCleanup(() => probe.end());

  onMount(() => app.reread(app.catalogue, app.algorithms));
  const kept = (): string => {
    if (!draft.unsaved()) return app.connection.status() === "ready" ? "Draft kept by the broker" : "";
    return app.connection.status() === "ready" ? "Draft kept here" : "Draft kept here until a broker answers";
  };
  let typed: [before: RunDraft, now: RunDraft][] | undefined; // while a configuration is read that is to be copied
  function change(part: Partial<RunDraft>): void {
    typed?.push([draft.value(), { ...draft.value(), ...part }]);
    draft.change((now) => ({ ...now, ...part }));
    setRefusal(undefined);
  }
  // A newcomer's form can be started: what was not chosen yet is the first algorithm, and the first series.
  createEffect(() => {
    const { algorithm, symbols } = draft.value();
    if (!draft.known() || (algorithm !== "" && symbols.length > 0) || algorithms().length === 0) return;
    const first = series().find((one) => one.timeframe !== "tick") ?? series()[0];
    if (first === undefined) return;
    const usual = algorithms().find((one) => one.name === "sma_cross") ?? algorithms()[0];
    const timeframe = first.timeframe === "tick" ? "1m" : first.timeframe;
    draft.change((now) => ({
      ...now,
      algorithm: now.algorithm || (usual?.name ?? ""),
      ...(now.symbols.length > 0 ? {} : { symbols: [first.symbol], timeframe }),
    }));
  });
  createEffect(
    on(
      () => props.copyOf,
      (id) => {
        if (id !== undefined) void copy(id);
      },
    ),
  );
  async function copy(id: string): Promise<void> {
    typed = [];
    try {
      const { config } = await app.client.request("GetBacktestResults", { backtestId: id, tables: [] });
      const before = draft.value();
      change(typed.reduce((next, [from, to]) => withTyped(next, from, to), draftOf(config, algorithms())));
      app.go({ screen: "run" });
      app.notices.show(`The form has the configuration of backtest ${id.slice(0, 8)}.`, {
        action: { label: "Undo", run: () => change(before) },
      });
    } catch (error) {
      app.notices.show(`The configuration of ${id} could not be read: ${messageOf(error)}`, { kind: "error" });
    }
    typed = undefined;
  }
  async function start(): Promise<void> {
    setTried(true);
    setRefusal(undefined);
    const { config } = built();
    if (config === undefined) {
      focusFirstError();
      return;
    }
    setStarting(true);
    try {
      const { backtestId } = await app.client.request("StartBacktest", { backtestId: crypto.randomUUID(), ...config });
      app.go({ screen: "backtest", id: backtestId });
    } catch (error) {
      setRefusal({ error, fields: Object.fromEntries(fieldsOf(error).map((field) => [field, messageOf(error)])) });
      queueMicrotask(focusFirstError);
    }
    setStarting(false);
  }
  // An empty field of a form that was not sent yet is no mistake.
  const isShown = (field: string): boolean => tried() || !isEmpty(draft.value(), field);
  const mistakes = createMemo(() => {
    const shown = Object.entries(built().errors).filter(([field]) => isShown(field));
    return [...new Set(shown.map(([, error]) => error))];
  });
  function errorOf(field: string): string | undefined {
    const own = built().errors[field];
    if (own !== undefined && isShown(field)) return own;
    return refusal()?.fields[field] ?? probe.errorOf(field);
  }
  const part: FormPart = {
    get draft() {
      return draft.value();
    },
    change,
    errorOf,
    get algorithms() {
      return algorithms();
    },
    get series() {
      return series();
    },
  };

  return (
    <section class="screen run-screen" aria-label="Run">
      <header class="screen-header">
        <h1>Run a backtest</h1>
        <span class="muted small">{kept()}</span>
        <div class="actions">
          <Button
            kind="quiet"
            onClick={() => {
              const before = draft.value();
              change(EMPTY_DRAFT);
              setTried(false);
              app.notices.show("The form is empty again.", { action: { label: "Undo", run: () => change(before) } });
            }}
          >
            Clear
          </Button>
        </div>
      </header>
      <OldNote error={staleOf(app.algorithms.state()) ?? staleOf(app.catalogue.state())} />
      <Switch>
        <Match when={waitingOf(app.algorithms.state()) ?? waitingOf(app.catalogue.state())}>
          {(state) => <WaitingForBroker what={state().what} since={state().since} />}
        </Match>
        <Match when={failedOf(app.algorithms.state()) ?? failedOf(app.catalogue.state())}>
          {(state) => (
            <ErrorPanel
              error={state().error}
              title={`This could not be read: ${state().what}`}
              actions={[
                {
                  label: "Try again",
                  run: () => {
                    void app.algorithms.refresh();
                    void app.catalogue.refresh();
                  },
                },
              ]}
            />
          )}
        </Match>
        <Match when={series().length === 0}>
          <EmptyState
            title="There is nothing to run on yet"
            actions={
              <a class="button primary" href="#/data">
                Go to the data
              </a>
            }
          >
            Import a file of bars or ticks first; an empty catalogue offers a made-up sample.
          </EmptyState>
        </Match>
        <Match when={true}>
          <form
            class="run-columns"
            onSubmit={(event) => {
              event.preventDefault();
              void start();
            }}
          >
            <div class="run-form">
              <AlgorithmFields {...part} />
              <DataFields {...part} />
              <MoneyFields {...part} />
              <OptionFields {...part} />
            </div>
            <div class="run-side">
              <h2 class="visually-hidden">Prices, checks and start</h2>
              <RangePreview draft={draft.value()} series={series()} />
              <ProbeVerdict probe={probe} />
              <Show when={refusal()}>
                {(one) => <ErrorPanel error={one().error} title="The broker did not start it" />}
              </Show>
              <Show when={mistakes().length > 0}>
                <Mistakes mistakes={mistakes()} />
              </Show>
              <div class="run-actions">
                <Button kind="primary" type="submit" busy={starting()}>
                  {starting() ? "Starting" : "Start the backtest"}
                </Button>
                <CopyButtons config={built().config} />
              </div>
            </div>
          </form>
        </Match>
      </Switch>
    </section>
  );
}

function Mistakes(props: { readonly mistakes: readonly string[] }): JSX.Element {
  return (
    <div class="error-panel mild" role="alert">
      <strong>Before it can start</strong>
      <ul class="error-advice small">
        <For each={props.mistakes}>{(error) => <li>{error}</li>}</For>
      </ul>
    </div>
  );
}

function CopyButtons(props: { readonly config: ReturnType<typeof build>["config"] }): JSX.Element {
  const { notices } = useApp();
  async function copy(text: string, name: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      notices.show(`Copied as ${name}.`);
    } catch {
      notices.show(`The browser lets nothing be copied. As ${name}: ${text}`, { kind: "error" });
    }
  }
  return (
    <>
      <Button
        disabled={props.config === undefined}
        onClick={() => props.config && void copy(asPython(props.config), "Python")}
      >
        Copy as Python
      </Button>
      <Button
        disabled={props.config === undefined}
        onClick={() => props.config && void copy(asCommand(props.config), "a command")}
      >
        Copy as CLI
      </Button>
    </>
  );
}

function isEmpty(draft: RunDraft, field: string): boolean {
  if (field.includes(".")) return false;
  const value = draft[field as keyof RunDraft];
  return value === "" || (Array.isArray(value) && value.length === 0);
}

function focusFirstError(): void {
  const input = document.querySelector<HTMLElement>(".run-form [aria-invalid='true']");
  input?.closest("details")?.setAttribute("open", "");
  input?.focus();
}
