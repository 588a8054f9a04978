import type { JSX } from "solid-js";
import { NumberField, Select } from "../../components/field";
import { PRESETS } from "./conventions";
import type { FormPart } from "./run-form";

/** Capital, costs, and whose conventions hold. */
export function MoneyFields(props: FormPart): JSX.Element {
  return (
    <fieldset class="panel run-section">
      <legend>Money</legend>
      <div class="run-fields">
        <NumberField
          label="Initial capital"
          name="capital"
          value={props.draft.capital}
          step={1000}
          low={0}
          onInput={(capital) => props.change({ capital })}
          error={props.errorOf("capital")}
        />
        <NumberField
          label="Commission"
          name="commission"
          unit="%"
          value={props.draft.commission}
          initial="0"
          step={0.01}
          low={0}
          onInput={(commission) => props.change({ commission })}
          error={props.errorOf("commission")}
          hint="Of traded value."
        />
        <NumberField
          label="Slippage"
          name="slippage"
          unit="%"
          value={props.draft.slippage}
          initial="0"
          step={0.01}
          low={0}
          onInput={(slippage) => props.change({ slippage })}
          error={props.errorOf("slippage")}
          hint="Of the price, against you."
        />
        <Select
          label="Conventions"
          name="preset"
          value={props.draft.preset}
          choices={PRESETS.map(([value, label]) => ({ value, label }))}
          onChange={(preset) => props.change({ preset })}
          error={props.errorOf("preset")}
          hint="How orders are filled and figures computed. Options below count more."
        />
      </div>
    </fieldset>
  );
}
