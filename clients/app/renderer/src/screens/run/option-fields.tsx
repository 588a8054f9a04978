import { createMemo, For, type JSX, Show } from "solid-js";
import { NumberField, Select, Switch } from "../../components/field";
import { RUN_OPTIONS, type RunOption, SECTIONS, type Section } from "./conventions";
import type { FormPart } from "./run-form";

/** The conventions by sections, each closed until it is opened or has something set, and the pace. */
export function OptionFields(props: FormPart): JSX.Element {
  return (
    <>
      <OptionSections {...props} />
      <Pace {...props} />
    </>
  );
}

/** The conventions without the pace. */
export function OptionSections(props: FormPart): JSX.Element {
  return <For each={SECTIONS}>{(section) => <OptionSection {...props} section={section} />}</For>;
}

function OptionSection(props: FormPart & { readonly section: Section }): JSX.Element {
  const options = RUN_OPTIONS.filter((one) => one.section === props.section);
  const count = createMemo(() => options.filter((one) => (props.draft.options[one.name] ?? "") !== "").length);
  const wrong = createMemo(() => options.some((one) => props.errorOf(`options.${one.name}`) !== undefined));
  const openAtFirst = count() > 0;
  return (
    <details class="panel run-section" open={openAtFirst}>
      <summary>
        {props.section}
        <Show when={count() > 0}>
          <span class="badge">{count()} set</span>
        </Show>
        <Show when={wrong()}>
          <span class="field-error">to be mended</span>
        </Show>
      </summary>
      <div class="run-fields">
        <For each={options}>{(option) => <OptionField {...props} option={option} />}</For>
      </div>
    </details>
  );
}

function OptionField(props: FormPart & { readonly option: RunOption }): JSX.Element {
  const { option } = props;
  const common = {
    label: option.label,
    name: `option-${option.name}`,
    hint: option.hint,
    get value() {
      return props.draft.options[option.name] ?? "";
    },
    get error() {
      return props.errorOf(`options.${option.name}`);
    },
  };
  const set = (value: string): void => props.change({ options: { ...props.draft.options, [option.name]: value } });
  // A preset has defaults of its own.
  const initial = (label: string): string =>
    props.draft.preset === "" ? `${label} (default)` : "As the preset has it";
  if (option.kind === "choice" || option.kind === "switch") {
    const listed = option.choices ?? [
      ["true", "Yes"],
      ["false", "No"],
    ];
    const labelOf = (): string => listed.find(([value]) => value === String(option.initial))?.[1] ?? "";
    const choices = () => [
      { value: "", label: initial(labelOf()) },
      ...listed.map(([value, label]) => ({ value, label })),
    ];
    return <Select {...common} choices={choices()} onChange={set} />;
  }
  const scale = option.kind === "percent" ? 100 : 1;
  const step = option.kind === "percent" ? 0.5 : 1;
  const scaled = (bound: number | undefined): number | undefined => (bound === undefined ? undefined : scale * bound);
  const byPreset = (): string | undefined => (props.draft.preset === "" ? undefined : "as the preset");
  const own = (): string | undefined =>
    props.draft.preset === "" ? String(scale * Number(option.initial)) : undefined;
  return (
    <NumberField
      {...common}
      unit={option.kind === "percent" ? "%" : undefined}
      placeholder={byPreset()}
      initial={own()}
      step={step}
      low={scaled(option.low)}
      high={scaled(option.high)}
      onInput={set}
    />
  );
}

function Pace(props: FormPart): JSX.Element {
  const openAtFirst = props.draft.pace !== "";
  return (
    <details class="panel run-section" open={openAtFirst}>
      <summary>
        Watch it
        <Show when={props.draft.pace !== ""}>
          <span class="badge">{props.draft.pace} bars/s</span>
        </Show>
      </summary>
      <div class="run-fields">
        <NumberField
          label="Pace"
          name="pace"
          unit="bars/s"
          value={props.draft.pace}
          placeholder="full speed"
          step={10}
          low={0.01}
          high={1_000_000}
          onInput={(pace) => props.change({ pace })}
          error={props.errorOf("pace")}
          hint="Slows the simulation so that it can be watched; no figure changes."
        />
        <Show when={props.draft.pace.trim() !== ""}>
          <Switch
            label="Publish the prices"
            checked={props.draft.publishPrices}
            onChange={(publishPrices) => props.change({ publishPrices })}
            hint="So that the live chart moves bar by bar."
          />
        </Show>
      </div>
    </details>
  );
}
