import type { ParameterInfo } from "@backtestr/client/page";
import { createMemo, For, type JSX, Show } from "solid-js";
import { NumberField, Select, TextField } from "../../components/field";
import { algorithmOf, boundsOf } from "./run-config";
import type { FormPart } from "./run-screen";

/** The algorithm with a field for each of its parameters. */
export function AlgorithmFields(props: FormPart): JSX.Element {
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
  const typed = (name: string): string => props.draft.parameters[info()?.name ?? ""]?.[name] ?? "";
  function type(name: string, value: string): void {
    const algorithm = info()?.name ?? "";
    const { parameters } = props.draft;
    props.change({ parameters: { ...parameters, [algorithm]: { ...parameters[algorithm], [name]: value } } });
  }
  return (
    <fieldset class="panel run-section">
      <legend>Algorithm</legend>
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
      <div class="run-fields">
        <For each={info()?.parameters}>
          {(parameter) => (
            <ParameterField
              parameter={parameter}
              value={typed(parameter.name)}
              onInput={(value) => type(parameter.name, value)}
              error={props.errorOf(`parameters.${parameter.name}`)}
            />
          )}
        </For>
      </div>
      <Show when={(info()?.requires?.length ?? 0) > 0}>
        <p class="small muted">
          Required: <code>{info()?.requires?.join(", ")}</code>
        </p>
      </Show>
    </fieldset>
  );
}

interface ParameterFieldProps {
  readonly parameter: ParameterInfo;
  readonly value: string;
  onInput(value: string): void;
  readonly error: string | undefined;
}

function ParameterField(props: ParameterFieldProps): JSX.Element {
  const { parameter } = props;
  const initial = String(parameter.default);
  const said = [parameter.description, parameter.type === "str" ? undefined : boundsOf(parameter)].filter(Boolean);
  const common = {
    label: parameter.name,
    name: `parameter-${parameter.name}`,
    hint: said.join("; "),
    get value() {
      return props.value;
    },
    get error() {
      return props.error;
    },
  };
  if (parameter.type === "bool") {
    const choices = [
      { value: "", label: `${initial} (default)` },
      { value: "true", label: "true" },
      { value: "false", label: "false" },
    ];
    return <Select {...common} choices={choices} onChange={props.onInput} />;
  }
  if (parameter.type === "str") return <TextField {...common} placeholder={initial} onInput={props.onInput} />;
  return (
    <NumberField
      {...common}
      initial={initial}
      step={stepOf(parameter)}
      low={parameter.low}
      high={parameter.high}
      onInput={props.onInput}
    />
  );
}

/** A hundredth of the range, as a power of ten. */
function stepOf(parameter: ParameterInfo): number {
  const { low, high, type } = parameter;
  if (type === "int") return 1;
  if (low === undefined || high === undefined || !(high > low)) return 0.1;
  return 10 ** Math.floor(Math.log10((high - low) / 50));
}
