/** A histogram: gains and losses apart, with the bin under the pointer or the keys in words. */

import { createMemo, createSignal, For, type JSX, Show } from "solid-js";
import { Definition } from "../components/definition";
import { EmptyState } from "../components/states";
import { count } from "../format/numbers";
import { type Bin, binned, HISTOGRAM_FORMULA } from "./histogram-bins";
import "./histogram.css";

export interface HistogramProps {
  readonly title: string;
  readonly values: ArrayLike<number>;
  readonly format: (value: number) => string;
  /** The reason why there is nothing, as a sentence. */
  readonly why: string;
  readonly testId: string;
}

const HEIGHT = 100;

/** Shows how many values are in each bin. */
export function Histogram(props: HistogramProps): JSX.Element {
  const bins = createMemo(() => binned(props.values));
  const most = createMemo(() => bins().reduce((so, one) => Math.max(so, one.count), 0));
  const [chosen, setChosen] = createSignal<Bin>();
  const all = (): number => bins().reduce((sum, one) => sum + one.count, 0);
  const said = (bin: Bin): string =>
    `${props.format(bin.from)} to ${props.format(bin.to)}: ${count(bin.count)} of ${count(all())}`;
  const summary = (): string => {
    const below = bins().reduce((sum, one) => sum + (one.to <= 1e-12 ? one.count : 0), 0);
    const [first, last] = [bins()[0], bins().at(-1)];
    if (first === undefined || last === undefined) return props.why;
    const peak = bins().find((one) => one.count === most()) as Bin;
    return `${props.title}. ${count(all())} values from ${props.format(first.from)} to ${props.format(last.to)}, ${count(below)} below zero. Most are in ${said(peak)}.`;
  };
  function move(event: KeyboardEvent): void {
    const steps = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (steps === 0) return;
    event.preventDefault();
    const present = chosen();
    const at = present === undefined ? (steps > 0 ? -1 : bins().length) : bins().indexOf(present);
    setChosen(bins()[Math.max(0, Math.min(bins().length - 1, at + steps))]);
  }
  return (
    <figure class="chart panel histogram" data-testid={props.testId}>
      <div class="panel-header chart-header">
        <h2>{props.title}</h2>
        <Definition term={props.title} mark>
          {HISTOGRAM_FORMULA}
        </Definition>
        <span class="small muted" role="status">
          <Show when={chosen()}>{(bin) => said(bin())}</Show>
        </span>
      </div>
      <Show when={bins().length > 0} fallback={<EmptyState title="Nothing to draw">{props.why}</EmptyState>}>
        <div
          class="histogram-body"
          role="application"
          aria-label={summary()}
          tabindex={0}
          onKeyDown={move}
          onPointerLeave={() => setChosen(undefined)}
        >
          <svg viewBox={`0 0 ${bins().length} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
            <For each={bins()}>
              {(bin, index) => (
                <g onPointerEnter={() => setChosen(bin)}>
                  <rect class="histogram-hit" x={index()} y="0" width="1" height={HEIGHT} />
                  <rect
                    class={bin.to <= 1e-12 ? "negative" : "positive"}
                    classList={{ chosen: chosen() === bin }}
                    x={index() + 0.06}
                    y={HEIGHT - (HEIGHT * bin.count) / most()}
                    width="0.88"
                    height={(HEIGHT * bin.count) / most()}
                  />
                </g>
              )}
            </For>
          </svg>
        </div>
        <div class="histogram-axis small muted" aria-hidden="true">
          <span>{props.format(bins()[0]?.from ?? 0)}</span>
          <span>most: {count(most())}</span>
          <span>{props.format(bins().at(-1)?.to ?? 0)}</span>
        </div>
      </Show>
    </figure>
  );
}
