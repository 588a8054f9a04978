/** All metrics by group, each with its definition, formula and source, and the reason where it is undefined. */

import { METRIC_SYMBOLS, type MetricDefinition, type Metrics } from "@backtestr/client/page";
import { For, type JSX, Show } from "solid-js";
import { Definition } from "../../components/definition";
import { sense } from "../../format/numbers";
import { METRIC_GROUPS, metricText, metricValue, whyUndefined } from "./metric-text";
import "./metrics-panel.css";

/** The metrics whose sign is a gain or a loss. */
const SIGNED = new Set([
  "totalReturn",
  "annualReturn",
  "cagr",
  "alpha",
  "expectancy",
  "averageTrade",
  "bestTrade",
  "worstTrade",
]);

export interface MetricsProps {
  readonly metrics: Metrics;
  /** Whether the statistics are `daily_geometric`, which has other formulas for some. */
  readonly isDaily: boolean;
}

/** A metric's name, whose definition is shown on hover and focus. */
export function MetricName(props: {
  readonly definition: MetricDefinition;
  readonly isDaily: boolean;
  readonly why?: string | undefined;
}): JSX.Element {
  const formula = (): string =>
    props.isDaily && props.definition.dailyGeometric !== undefined
      ? props.definition.dailyGeometric
      : props.definition.formula;
  return (
    <Definition term={props.definition.label}>
      <Show when={props.why}>
        <p>
          <strong>{props.why}</strong>
        </p>
      </Show>
      <p>{formula()}</p>
      <p class="muted">Source: {props.definition.source}</p>
      <p class="muted">
        Unit: {props.definition.unit}. On the wire: <code>{props.definition.name}</code>
      </p>
    </Definition>
  );
}

/** A metric's value, with the reason where it has none. */
export function MetricValue(props: { readonly definition: MetricDefinition; readonly metrics: Metrics }): JSX.Element {
  const value = (): number | null | undefined => metricValue(props.metrics, props.definition.name);
  const why = (): string | undefined => whyUndefined(props.metrics, props.definition.name);
  return (
    <Show
      when={why() === undefined}
      fallback={
        <span class="muted">
          — <span class="small metric-why">{why()?.replace("Undefined: ", "")}</span>
        </span>
      }
    >
      <span class={SIGNED.has(props.definition.name) ? sense(value()) : ""}>
        {metricText(props.definition, value())}
      </span>
    </Show>
  );
}

/** Shows all metrics. */
export function MetricsPanel(props: MetricsProps): JSX.Element {
  return (
    <section class="panel metrics" data-testid="metrics" aria-label="Metrics">
      <div class="panel-header">
        <h2>Metrics</h2>
        <Definition term="the letters of the formulas" mark>
          {METRIC_SYMBOLS}
        </Definition>
      </div>
      <div class="metrics-groups">
        <For each={METRIC_GROUPS}>
          {(group) => (
            <section>
              <h3>{group.name}</h3>
              <dl>
                <For each={group.metrics}>
                  {(definition) => (
                    <div data-testid={`metric-${definition.name}`}>
                      <dt>
                        <MetricName
                          definition={definition}
                          isDaily={props.isDaily}
                          why={whyUndefined(props.metrics, definition.name)}
                        />
                      </dt>
                      <dd>
                        <MetricValue definition={definition} metrics={props.metrics} />
                      </dd>
                    </div>
                  )}
                </For>
              </dl>
            </section>
          )}
        </For>
      </div>
    </section>
  );
}
