import type { ParameterInfo } from "@backtestr/client/page";
import { createMemo, For, type JSX, Match, Show, Switch } from "solid-js";
import { NumberField, Select, TextField } from "../../components/field";
import { count } from "../../format/numbers";
import { AlgorithmChoice, ParameterField, Requirements, stepOf } from "../run/algorithm-fields";
import { algorithmOf, boundsOf } from "../run/run-config";
import type { FormPart } from "../run/run-form";
import type { AxisDraft, SweepDraft } from "./sweep-draft";
import { kindOf, type Suggested, suggestedSpace } from "./sweep-request";

export interface SpacePart extends FormPart {
  readonly sweep: SweepDraft;
  changeSweep(part: Partial<SweepDraft>): void;
  /** The number of values of each swept parameter. */
  readonly counts: { readonly [parameter: string]: number };
}

const LISTED = [
  { value: "fixed", label: "One value" },
  { value: "list", label: "A list" },
];
const NUMBERS = [
  ...LISTED,
  { value: "range", label: "A range" },
  { value: "uniform", label: "Evenly in" },
  { value: "log_uniform", label: "Evenly in log" },
];

/** The algorithm, and the values of each of its parameters. */
export function SpaceFields(props: SpacePart): JSX.Element {
  const info = createMemo(() => algorithmOf(props.draft, props.algorithms));
  const suggested = createMemo(() => {
    const found = info();
    return found === undefined ? {} : suggestedSpace(found);
  });
  // What a constraint does to the space is said at the constraint.
  const spaceError = (): string | undefined =>
    props.errorOf("space") === props.errorOf("where") ? undefined : props.errorOf("space");
  return (
    <fieldset class="panel run-section">
      <legend>Algorithm and space</legend>
      <AlgorithmChoice {...props} />
      <For each={info()?.parameters}>
        {(parameter) => <AxisFields {...props} parameter={parameter} suggested={suggested()[parameter.name]} />}
      </For>
      <Show when={spaceError()}>{(error) => <p class="field-error">{error()}</p>}</Show>
      <Requirements {...props} />
      <TextField
        label="Constraint"
        name="where"
        value={props.sweep.where}
        placeholder={example(info()?.parameters ?? [])}
        onInput={(where) => props.changeSweep({ where })}
        error={props.errorOf("where")}
        hint="Combinations for which it holds are run. As in Python: + − * / // %, abs, min, max, < <= == !=, and, or, not."
      />
    </fieldset>
  );
}

function AxisFields(
  props: SpacePart & { readonly parameter: ParameterInfo; readonly suggested: Suggested | undefined },
): JSX.Element {
  const { parameter } = props;
  const { name } = parameter;
  const algorithm = (): string => algorithmOf(props.draft, props.algorithms)?.name ?? "";
  const axis = (): Partial<AxisDraft> => props.sweep.space[algorithm()]?.[name] ?? {};
  const kind = (): string => kindOf(props.sweep.space[algorithm()]?.[name], props.suggested);
  const error = (): string | undefined => props.errorOf(`space.${name}`);
  function change(part: Partial<AxisDraft>): void {
    const { space } = props.sweep;
    const own = { ...space[algorithm()], [name]: { ...axis(), ...part } };
    props.changeSweep({ space: { ...space, [algorithm()]: own } });
  }
  // What is suggested stands there as if it were typed.
  const text = (part: "low" | "high" | "step"): string => axis()[part] ?? props.suggested?.[part] ?? "";
  // The first field says the mistake of all three.
  const number = (label: string, part: "low" | "high" | "step"): JSX.Element => (
    <NumberField
      label={label}
      name={`${part}-${name}`}
      value={text(part)}
      step={stepOf(parameter)}
      low={part === "step" ? 0 : parameter.low}
      high={part === "step" ? undefined : parameter.high}
      onInput={(typed) => change({ [part]: typed })}
      error={part === "low" ? error() : undefined}
    />
  );
  return (
    <div class="axis" role="group" aria-label={name} classList={{ swept: kind() !== "fixed" }}>
      <div class="axis-name">
        <strong>{name}</strong>
        <span class="small muted" title={parameter.description}>
          {parameter.type === "str" ? "text" : boundsOf(parameter)}
        </span>
      </div>
      <Select
        label={`Values of ${name}`}
        hideLabel
        name={`kind-${name}`}
        value={kind()}
        choices={parameter.type === "int" || parameter.type === "float" ? NUMBERS : LISTED}
        onChange={(chosen) => change({ kind: chosen })}
      />
      <div class="axis-values">
        <Switch fallback={<ParameterField {...props} />}>
          <Match when={kind() !== "fixed" && kind() !== "list"}>
            {number("From", "low")}
            {number("To", "high")}
            <Show when={kind() === "range"}>{number("Step", "step")}</Show>
          </Match>
          <Match when={kind() === "list"}>
            <TextField
              label={`List of ${name}`}
              hideLabel
              name={`list-${name}`}
              value={axis().list ?? ""}
              placeholder={parameter.type === "bool" ? "true, false" : "parted by commas"}
              onInput={(list) => change({ list })}
              error={error()}
            />
          </Match>
        </Switch>
      </div>
      <span class="axis-count small muted">
        <Show when={props.counts[name]}>{(values) => `${count(values())} ${values() === 1 ? "value" : "values"}`}</Show>
      </span>
    </div>
  );
}

function example(parameters: readonly ParameterInfo[]): string {
  const [one, other] = parameters.filter(({ type }) => type === "int" || type === "float");
  return other === undefined ? `${one?.name ?? "period"} % 2 == 0` : `${other.name} - ${one?.name} >= 10`;
}
