/** The closes of a series, with the part that was chosen. */

import { createMemo, type JSX } from "solid-js";
import { count, price } from "../format/numbers";
import { range as rangeText } from "../format/times";
import { ChartGroup } from "./chart-group";
import { Pyramid } from "./pyramid";
import { lowerBound } from "./search";
import { SeriesChart } from "./series-chart";
import type { PlotSeries } from "./series-plot";
import { barAxis } from "./time-ticks";

export interface PricePreviewProps {
  readonly title: string;
  /** The open times of bars, ascending milliseconds. */
  readonly times: Float64Array;
  readonly closes: Float64Array;
  /** The first time of the chosen range; the first bar without it. */
  readonly from?: number | undefined;
  /** The end of the chosen range, exclusive; behind the last bar without it. */
  readonly to?: number | undefined;
  readonly testId?: string | undefined;
}

/** Shows all closes, those of the chosen range in colour. */
export function PricePreview(props: PricePreviewProps): JSX.Element {
  const places = createMemo(() => Float64Array.from(props.times, (_, index) => index));
  const all = createMemo(() => new Pyramid(props.closes));
  const group = createMemo(() => {
    const bars = Math.max(1, props.times.length);
    return new ChartGroup(
      barAxis(() => props.times),
      { from: -0.5, to: bars - 0.5 },
      Math.min(20, bars),
    );
  });
  const chosen = createMemo(() => {
    const first = props.from === undefined ? 0 : lowerBound(props.times, props.from);
    const end = props.to === undefined ? props.times.length : lowerBound(props.times, props.to);
    return { first, end: Math.max(first, end) };
  });
  const series = createMemo((): readonly PlotSeries[] => {
    const { first, end } = chosen();
    const part = props.closes.map((close, index) => (index >= first && index < end ? close : Number.NaN));
    const isWhole = first === 0 && end === props.closes.length;
    const xs = places();
    const inColour: PlotSeries = { name: "Chosen", xs: () => xs, values: new Pyramid(part), colour: "series-1" };
    const rest: PlotSeries = { name: "Close", xs: () => xs, values: all(), colour: "series-8" };
    return isWhole ? [{ ...inColour, name: "Close" }] : [rest, inColour];
  });
  const note = (): string => {
    const { first, end } = chosen();
    if (end === first) return "No bar is in the chosen range.";
    const [from, to] = [props.times[first] as number, props.times[end - 1] as number];
    return `${count(end - first)} of ${count(props.times.length)} bars chosen, ${rangeText(from, to)}.`;
  };
  return (
    <SeriesChart
      title={props.title}
      group={group()}
      series={series()}
      format={price}
      note={note()}
      size="middle"
      state={props.times.length === 0 ? { kind: "empty", why: "There is no bar." } : undefined}
      testId={props.testId ?? "chart-preview"}
    />
  );
}
