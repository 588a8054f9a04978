/** A chart of lines over time, with its frame. */

import { createEffect, createMemo, createSignal, type JSX, on, onCleanup, onMount } from "solid-js";
import { moment as momentText } from "../format/times";
import { type ChartAction, ChartFrame, type ChartState } from "./chart-frame";
import type { ChartGroup } from "./chart-group";
import { Coalesced } from "./frame";
import { type PlotOptions, type PlotSeries, SeriesPlot } from "./series-plot";
import { readIndex, steppedPlace } from "./series-readout";
import { factsOf, summaryOf } from "./summary";

export interface SeriesChartProps {
  readonly title: string;
  readonly definition?: JSX.Element | undefined;
  readonly group: ChartGroup;
  /** A new array is drawn anew; to add values, push them and change `revision`. */
  readonly series: readonly PlotSeries[];
  /** Changes whenever values were added. */
  readonly revision?: unknown;
  /** The text of a value in the legend. */
  readonly format: (value: number) => string;
  /** The text of a label of the y axis; that of `format` without it. */
  readonly label?: PlotOptions["label"] | undefined;
  readonly isFromZero?: boolean | undefined;
  readonly state?: ChartState | undefined;
  readonly note?: JSX.Element | undefined;
  readonly size?: "small" | "middle" | "large" | undefined;
  readonly testId: string;
  /** Returns further buttons; `plot` gives the canvas of what is in view. */
  readonly actions?: ((plot: () => HTMLCanvasElement | undefined) => readonly ChartAction[]) | undefined;
}

/** Milliseconds between summaries of a chart that grows. */
const SUMMARY_MS = 2_000;
/** Milliseconds after which the first summary is made: the drawing comes before. */
const FIRST_SUMMARY_MS = 200;

/** Draws series of one group. */
export function SeriesChart(props: SeriesChartProps): JSX.Element {
  let plot: SeriesPlot | undefined;
  const [cursor, setCursor] = createSignal<number | null>(null);
  const [summary, setSummary] = createSignal("");
  const state = createMemo((): ChartState => {
    if (props.state !== undefined && props.state.kind !== "ready") return props.state;
    const isEmpty = props.series.every((one) => {
      const { min, max } = one.values.extremes(0, one.values.length);
      return min > max;
    });
    return isEmpty ? { kind: "empty", why: "No value is defined." } : { kind: "ready" };
  });
  // The crosshair may move more often than once a frame.
  const reading = new Coalesced(() => setCursor(props.group.cursor));
  createEffect(() => {
    const end = props.group.onCursor(() => reading.request());
    onCleanup(() => {
      end();
      reading.cancel();
    });
  });

  function summarise(): void {
    const parts = props.series.map((one) => {
      const xs = one.xs();
      const facts = factsOf(xs, one.values.values, Math.min(xs.length, one.values.length));
      return summaryOf(one.name, facts, {
        value: props.format,
        time: (place) => momentText(props.group.axis.timeAt(place)),
      });
    });
    setSummary(parts.join(" "));
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  createEffect(
    on([() => props.series, () => props.revision], () => {
      timer ??= setTimeout(
        () => {
          timer = undefined;
          summarise();
        },
        summary() === "" ? FIRST_SUMMARY_MS : SUMMARY_MS,
      );
    }),
  );
  onCleanup(() => clearTimeout(timer));

  function Plot(): JSX.Element {
    let host: HTMLDivElement | undefined;
    onMount(() => {
      createEffect(
        on(
          () => props.series,
          (series) => {
            if (host === undefined) return;
            const { group, isFromZero, label, format } = props;
            plot = new SeriesPlot(host, { group, series, label: label ?? format, isFromZero });
            onCleanup(() => {
              plot?.destroy();
              plot = undefined;
            });
          },
        ),
      );
      createEffect(
        on(
          () => props.revision,
          () => plot?.changed(),
          { defer: true },
        ),
      );
    });
    return <div ref={host} class="chart-plot" />;
  }

  const first = (): PlotSeries | undefined => props.series[0];
  const valueText = (one: PlotSeries): string => {
    void props.revision;
    const at = readIndex(one.xs(), one.values, cursor());
    const value = at < 0 ? Number.NaN : (one.values.values[at] as number);
    return Number.isNaN(value) ? "—" : props.format(value);
  };
  return (
    <ChartFrame
      title={props.title}
      definition={props.definition}
      group={props.group}
      legend={props.series.map((one) => ({
        name: one.name,
        colour: one.colour,
        isDashed: one.isDashed,
        value: () => valueText(one),
      }))}
      moment={() => {
        const place = cursor();
        return place === null ? "Last values" : momentText(props.group.axis.timeAt(place));
      }}
      actions={props.actions?.(() => plot?.canvas) ?? []}
      state={state()}
      summary={summary()}
      step={(place, steps) => {
        const one = first();
        if (one === undefined) return place;
        const xs = one.xs();
        return steppedPlace(xs, Math.min(xs.length, one.values.length), place, steps);
      }}
      note={props.note}
      size={props.size}
      testId={props.testId}
    >
      <Plot />
    </ChartFrame>
  );
}
