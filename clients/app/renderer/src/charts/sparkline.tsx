/** A sparkline: the course of a few hundred values at the size of a word. */

import { createMemo, type JSX, Show } from "solid-js";
import { sparklinePath } from "./sparkline-path";

/** The values of a sparkline, where NaN is a gap, and a `label` that says them in words. */
export interface SparklineProps {
  readonly values: ArrayLike<number>;
  readonly label: string;
  /** Pixels; 120 by default. */
  readonly width?: number | undefined;
  /** Pixels; 28 by default. */
  readonly height?: number | undefined;
}

/** Draws the sparkline, or a dash where no value is finite. */
export function Sparkline(props: SparklineProps): JSX.Element {
  const width = (): number => props.width ?? 120;
  const height = (): number => props.height ?? 28;
  const path = createMemo(() => sparklinePath(props.values, width(), height()));
  return (
    <Show when={path() !== ""} fallback={<span title={props.label}>–</span>}>
      <svg
        class="sparkline"
        role="img"
        aria-label={props.label}
        width={width()}
        height={height()}
        viewBox={`0 0 ${width()} ${height()}`}
      >
        <path
          d={path()}
          fill="none"
          stroke="var(--series-1, currentColor)"
          stroke-width="1.5"
          stroke-linecap="round"
          stroke-linejoin="round"
        />
      </svg>
    </Show>
  );
}
