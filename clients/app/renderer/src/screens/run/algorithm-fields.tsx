import type { ParameterInfo } from "@backtestr/client/page";
import { createMemo, For, type JSX, Show } from "solid-js";
import { NumberField, Select, TextField } from "../../components/field";
import { algorithmOf, boundsOf } from "./run-config";
import type { FormPart } from "./run-form";

/** The algorithm with a field for each of its parameters. */
export function AlgorithmFields(props: FormPart): JSX.Element {
  const info = createMemo(() => algorithmOf(props.draft, props.algorithms));
  return (
    <fieldset class="panel run-section">
      <legend>Algorithm</legend>
      <AlgorithmChoice {...props} />
      <div class="run-fields">
        <For each={info()?.parameters}>{(parameter) => <ParameterField {...props} parameter={parameter} />}</For>
      </div>
      <Requirements {...props} />
    </fieldset>
  );
}

/** The choice of the algorithm, with what it does and whether it looks ahead. */
export function AlgorithmChoice(props: FormPart): JSX.Element {
  const info = createMemo(() => algorithmOf(props.draft, props.algorithms));
  const choices = createMemo(() => {
    const known = props.algorithms.map((one) => ({
      value: one.name,
      label: one.origin === undefined || one.origin === "built-in" ? one.name : `${one.name} (${one.origin})`,
    }));
    const { algorithm } = props.draft;
    const isKnown = known.some((one) => one.value === algorithm);
    return isKnown ? known : [{ value: algorithm, label: algorithm === "" ? "Choose one" : algorithm }, ...known];
  });
  return (
    <>
      <Select
        label="Algorithm"
        name="algorithm"
        value={props.draft.algorithm}
        choices={choices()}
        onChange={(algorithm) => props.change({ algorithm })}
        error={props.errorOf("algorithm")}
        hint={info()?.description}
      />
      <Show when={info()?.lookAhead?.passed === false}>
        <p class="field-error">
          This algorithm did not pass the look-ahead check: its results may be better than any trader's can be.
        </p>
      </Show>
    </>
  );
}

/** The relations that the algorithm requires of its parameters. */
export function Requirements(props: FormPart): JSX.Element {
  const required = (): string => (algorithmOf(props.draft, props.algorithms)?.requires ?? []).join(", ");
  return (
    <Show when={required()}>
      <p class="small muted">
        Required: <code>{required()}</code>
      </p>
    </Show>
  );
}

export interface ParameterFieldProps extends FormPart {
  readonly parameter: ParameterInfo;
}

/** The value of one parameter. */
export function ParameterField(props: ParameterFieldProps): JSX.Element {
  const { parameter } = props;
  const algorithm = (): string => algorithmOf(props.draft, props.algorithms)?.name ?? "";
  function type(value: string): void {
    const { parameters } = props.draft;
    const own = { ...parameters[algorithm()], [parameter.name]: value };
    props.change({ parameters: { ...parameters, [algorithm()]: own } });
  }
  const initial = String(parameter.default);
  const said = [parameter.description, parameter.type === "str" ? undefined : boundsOf(parameter)].filter(Boolean);
  const common = {
    label: parameter.name,
    name: `parameter-${parameter.name}`,
    hint: said.join("; "),
    get value() {
      return props.draft.parameters[algorithm()]?.[parameter.name] ?? "";
    },
    get error() {
      return props.errorOf(`parameters.${parameter.name}`);
    },
  };
  if (parameter.type === "bool") {
    const choices = [
      { value: "", label: `${initial} (default)` },
      { value: "true", label: "true" },
      { value: "false", label: "false" },
    ];
    return <Select {...common} choices={choices} onChange={type} />;
  }
  if (parameter.type === "str") return <TextField {...common} placeholder={initial} onInput={type} />;
  return (
    <NumberField
      {...common}
      initial={initial}
      step={stepOf(parameter)}
      low={parameter.low}
      high={parameter.high}
      onInput={type}
    />
  );
}

/** A hundredth of the range, as a power of ten. */
export function stepOf(parameter: ParameterInfo): number {
  const { low, high, type } = parameter;
  if (type === "int") return 1;
  if (low === undefined || high === undefined || !(high > low)) return 0.1;
  return 10 ** Math.floor(Math.log10((high - low) / 50));
}
