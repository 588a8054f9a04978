/** The legend of the scale of colours, with its values, and the marks of what has none. */

import { type JSX, Show } from "solid-js";
import { Canvas, type Draw } from "./canvas";
import { colourOfStep, stepOf } from "./colour-scale";
import type { ValueDomain } from "./value-domain";

export interface RampLegendProps {
  readonly domain: ValueDomain;
  readonly text: (value: number) => string;
}

const ramp: Draw = (context, width, height) => {
  for (let x = 0; x < width; x += 1) {
    context.fillStyle = colourOfStep(stepOf(x / (width - 1)));
    context.fillRect(x, 0, 1, height);
  }
};

export function RampLegend(props: RampLegendProps): JSX.Element {
  const sign = (isBest: boolean): string => {
    if (!props.domain.isCut) return "";
    return isBest === props.domain.best > props.domain.worst ? "≥ " : "≤ ";
  };
  return (
    <div class="ramp-legend small muted">
      <span>
        worst {sign(false)}
        {props.text(props.domain.worst)}
      </span>
      <Show when={props.domain.worst !== props.domain.best}>
        <span class="ramp">
          <Canvas draw={ramp} />
        </span>
      </Show>
      <span>
        best {sign(true)}
        {props.text(props.domain.best)}
      </span>
    </div>
  );
}
