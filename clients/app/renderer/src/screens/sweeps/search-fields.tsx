import { For, type JSX, Show } from "solid-js";
import { Definition } from "../../components/definition";
import { NumberField, Select } from "../../components/field";
import type { SpacePart } from "./space-fields";
import { METRICS } from "./sweep-request";

const METHODS = [
  { value: "grid", label: "Every combination" },
  { value: "random", label: "Random ones" },
  { value: "tpe", label: "Learning from rows (TPE)" },
  { value: "cmaes", label: "Learning from rows (CMA-ES)" },
];
/** The trials of a method that is given no number. */
const TRIALS: { readonly [method: string]: string } = { random: "1000", tpe: "200", cmaes: "200" };

interface NumberOf {
  readonly name: "trials" | "seed" | "batchSize";
  readonly label: string;
  readonly initial: string;
  readonly hint: string;
}

/** The numbers of a method. */
function numbersOf(method: string): readonly NumberOf[] {
  if (method === "grid") return [];
  const all: NumberOf[] = [
    { name: "trials", label: "Trials", initial: TRIALS[method] ?? "", hint: "Combinations that are run, each once." },
    { name: "seed", label: "Seed", initial: "0", hint: "The same seed runs the same combinations." },
  ];
  const hint = "Trials that are proposed together, before their rows are learnt from.";
  return method === "random" ? all : [...all, { name: "batchSize", label: "Batch", initial: "16", hint }];
}

/** Figures of which less is better: to choose one of them turns the direction. */
const LESS_IS_BETTER = /drawdown|volatility|fees|slippage|ulcer|turnover|average_mae/;

/** The objective, the method, and the figures of each row. */
export function SearchFields(props: SpacePart): JSX.Element {
  const objective = () => METRICS.get(props.sweep.objective);
  return (
    <fieldset class="panel run-section">
      <legend>Search</legend>
      <div class="run-fields">
        <Select
          label="Objective"
          name="objective"
          value={props.sweep.objective}
          choices={[...METRICS].map(([value, { label }]) => ({ value, label }))}
          onChange={(chosen) =>
            props.changeSweep({
              objective: chosen,
              direction: LESS_IS_BETTER.test(chosen) ? "minimize" : "maximize",
            })
          }
          error={props.errorOf("objective")}
          beside={
            <Show when={objective()}>
              {(one) => (
                <Definition term={one().label} mark>
                  {one().formula}
                </Definition>
              )}
            </Show>
          }
        />
        <Select
          label="The best row has"
          name="direction"
          value={props.sweep.direction}
          choices={[
            { value: "maximize", label: "the highest value" },
            { value: "minimize", label: "the lowest value" },
          ]}
          onChange={(direction) => props.changeSweep({ direction })}
          error={props.errorOf("direction")}
        />
        <Select
          label="Combinations"
          name="method"
          value={props.sweep.method}
          choices={METHODS}
          onChange={(method) => props.changeSweep({ method })}
          error={props.errorOf("method")}
        />
        <For each={numbersOf(props.sweep.method)}>
          {({ name, label, initial, hint }) => (
            <NumberField
              label={label}
              name={name}
              value={props.sweep[name]}
              initial={initial}
              step={name === "trials" ? 100 : 1}
              low={name === "seed" ? 0 : 1}
              onInput={(text) => props.changeSweep({ [name]: text })}
              error={props.errorOf(name)}
              hint={hint}
            />
          )}
        </For>
        <Select
          label="Figures of each row"
          name="metrics"
          value={props.sweep.metrics}
          choices={[
            { value: "", label: "The usual ones" },
            { value: "all", label: "All, in more time" },
          ]}
          onChange={(metrics) => props.changeSweep({ metrics })}
          error={props.errorOf("metrics")}
        />
      </div>
    </fieldset>
  );
}
