/** The frame of every chart: its title, formula, legend, buttons, states, and its words for those who do not see it. */

import { createSignal, createUniqueId, For, type JSX, onCleanup, Show } from "solid-js";
import { Button } from "../components/button";
import { Definition } from "../components/definition";
import { ErrorPanel } from "../components/error-panel";
import { EmptyState, Waiting } from "../components/states";
import type { ColourName } from "../design/palette";
import type { ChartGroup } from "./chart-group";
import { followKey } from "./pointer";
import { KEYS_HELP, zoomed } from "./range";
import "./chart.css";

/** The state of a chart: with its plot, or why it has none. */
export type ChartState =
  | { readonly kind: "ready" }
  | { readonly kind: "waiting"; readonly what: string }
  | { readonly kind: "empty"; readonly why: string }
  | { readonly kind: "failed"; readonly error: unknown; readonly retry?: (() => void) | undefined };

/** A name in the legend, with its value at the crosshair. */
export interface LegendEntry {
  readonly name: string;
  /** The colour of its line; without it no line is shown. */
  readonly colour?: ColourName | undefined;
  readonly isDashed?: boolean | undefined;
  readonly value: () => string;
}

/** An entry of the chart's own buttons. */
export interface ChartAction {
  readonly label: string;
  readonly title: string;
  readonly run: () => void;
}

export interface ChartFrameProps {
  readonly title: string;
  /** The formula, or what else defines the chart. */
  readonly definition?: JSX.Element | undefined;
  readonly group?: ChartGroup | undefined;
  readonly legend?: readonly LegendEntry[] | undefined;
  /** The time at the crosshair. */
  readonly moment?: (() => string) | undefined;
  readonly actions?: readonly ChartAction[] | undefined;
  readonly state?: ChartState | undefined;
  /** The chart in sentences. */
  readonly summary: string;
  /** Returns the place of the value that is `steps` from a place; charts that have it are worked by keys. */
  readonly step?: ((place: number, steps: number) => number) | undefined;
  /** A line below the plot. */
  readonly note?: JSX.Element | undefined;
  readonly size?: "small" | "middle" | "large" | undefined;
  readonly testId: string;
  /** The plot; it fills its parent. */
  readonly children: JSX.Element;
}

/** Frames a plot. */
export function ChartFrame(props: ChartFrameProps): JSX.Element {
  const id = createUniqueId();
  const [said, setSaid] = createSignal("");
  const state = (): ChartState => props.state ?? { kind: "ready" };
  let timer: ReturnType<typeof setTimeout> | undefined;
  onCleanup(() => clearTimeout(timer));

  function keyed(event: KeyboardEvent): void {
    if (props.group === undefined || props.step === undefined) return;
    if (!followKey(event, props.group, props.step)) return;
    // A held key moves on; what it comes to is said.
    clearTimeout(timer);
    timer = setTimeout(() => setSaid(spoken()), 250);
  }
  const spoken = (): string =>
    [props.moment?.(), ...(props.legend ?? []).map((one) => `${one.name} ${one.value()}`)].filter(Boolean).join(", ");

  return (
    <figure class="chart panel" data-testid={props.testId} data-state={state().kind} aria-labelledby={`${id}-title`}>
      <div class="panel-header chart-header">
        <h2 id={`${id}-title`}>{props.title}</h2>
        <Show when={props.definition}>
          <Definition term={props.title} mark>
            {props.definition}
          </Definition>
        </Show>
        <Show when={state().kind === "ready"}>
          <ul class="chart-legend small">
            <Show when={props.moment}>{(moment) => <li class="muted chart-moment">{moment()()}</li>}</Show>
            <For each={props.legend}>
              {(one) => (
                <li>
                  <Show when={one.colour}>
                    {(colour) => (
                      <span
                        class={`chart-swatch ${colour()}`}
                        classList={{ dashed: one.isDashed === true }}
                        aria-hidden="true"
                      />
                    )}
                  </Show>
                  {one.name} <strong>{one.value()}</strong>
                </li>
              )}
            </For>
          </ul>
          <div class="actions">
            <Show when={props.group}>{(group) => <ZoomButtons group={group()} title={props.title} />}</Show>
            <For each={props.actions}>
              {(one) => (
                <Button title={one.title} aria-label={one.title} onClick={one.run}>
                  {one.label}
                </Button>
              )}
            </For>
          </div>
        </Show>
      </div>
      <Show when={state().kind === "ready"} fallback={<Instead state={state()} title={props.title} />}>
        <Show
          when={props.step}
          fallback={
            <div
              class={`chart-body ${props.size ?? "middle"}`}
              role="img"
              aria-label={`${props.title}. ${props.summary}`}
            >
              {props.children}
            </div>
          }
        >
          <div
            class={`chart-body ${props.size ?? "middle"}`}
            role="application"
            aria-label={props.title}
            aria-describedby={`${id}-words`}
            tabindex={0}
            onKeyDown={keyed}
          >
            {props.children}
          </div>
        </Show>
        <Show when={props.note}>
          <figcaption class="chart-note small muted">{props.note}</figcaption>
        </Show>
        <Show when={props.step}>
          <p id={`${id}-words`} class="visually-hidden">
            {props.summary} {KEYS_HELP}
          </p>
        </Show>
        <p class="visually-hidden" role="status">
          {said()}
        </p>
      </Show>
    </figure>
  );
}

function Instead(props: { readonly state: ChartState; readonly title: string }): JSX.Element {
  const waiting = (): string | undefined => (props.state.kind === "waiting" ? props.state.what : undefined);
  const empty = (): string | undefined => (props.state.kind === "empty" ? props.state.why : undefined);
  const failed = (): Extract<ChartState, { kind: "failed" }> | undefined =>
    props.state.kind === "failed" ? props.state : undefined;
  return (
    <div class="chart-instead">
      <Show when={waiting()}>{(what) => <Waiting what={what()} />}</Show>
      <Show when={empty()}>{(why) => <EmptyState title="Nothing to draw">{why()}</EmptyState>}</Show>
      <Show when={failed()}>
        {(one) => (
          <ErrorPanel
            title={`${props.title}: this could not be read`}
            error={one().error}
            actions={one().retry === undefined ? [] : [{ label: "Try again", run: () => one().retry?.() }]}
          />
        )}
      </Show>
    </div>
  );
}

function ZoomButtons(props: { readonly group: ChartGroup; readonly title: string }): JSX.Element {
  const zoom = (factor: number): void => {
    const { range, bounds, least } = props.group;
    props.group.show(zoomed(range, factor, (range.from + range.to) / 2, bounds, least));
  };
  return (
    <>
      <Button aria-label={`Zoom in: ${props.title}`} title="Zoom in (+)" onClick={() => zoom(0.5)}>
        +
      </Button>
      <Button aria-label={`Zoom out: ${props.title}`} title="Zoom out (−)" onClick={() => zoom(2)}>
        −
      </Button>
      <Button
        aria-label={`Show all: ${props.title}`}
        title="Show all (0)"
        onClick={() => props.group.show(props.group.bounds)}
      >
        All
      </Button>
    </>
  );
}
