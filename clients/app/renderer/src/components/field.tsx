/** Labelled inputs. What is typed stays text, so that nothing typed is lost while it is no number yet. */

import { createUniqueId, For, type JSX, Show } from "solid-js";
import "./field.css";

export interface FieldProps {
  readonly label: string;
  /** The reason why the present value cannot be used; shown below, and told to screen readers. */
  readonly error?: string | undefined;
  /** One line that says what the field means, with its unit or bounds. */
  readonly hint?: JSX.Element | undefined;
  /** Stands beside the label, such as a `Definition`. */
  readonly beside?: JSX.Element | undefined;
  /** Makes the label visible to screen readers only. */
  readonly hideLabel?: boolean | undefined;
}

interface FrameProps extends FieldProps {
  readonly children: (ids: { readonly id: string; readonly describedBy: string | undefined }) => JSX.Element;
}

/** The frame of a field: label, input, hint and error. `children` gets the id and `aria-describedby` of the input. */
export function Field(props: FrameProps): JSX.Element {
  const id = createUniqueId();
  const describedBy = (): string | undefined => {
    const ids = [...(props.hint ? [`${id}-hint`] : []), ...(props.error ? [`${id}-error`] : [])];
    return ids.length === 0 ? undefined : ids.join(" ");
  };
  return (
    <div class="field" classList={{ invalid: Boolean(props.error) }}>
      <div class="field-label" classList={{ "visually-hidden": props.hideLabel === true }}>
        <label for={id}>{props.label}</label>
        {props.beside}
      </div>
      {props.children({
        id,
        get describedBy() {
          return describedBy();
        },
      })}
      <Show when={props.hint}>
        <p class="field-hint" id={`${id}-hint`}>
          {props.hint}
        </p>
      </Show>
      <Show when={props.error}>
        <p class="field-error" id={`${id}-error`} role="status">
          {props.error}
        </p>
      </Show>
    </div>
  );
}

export interface TextFieldProps extends FieldProps {
  readonly value: string;
  onInput(value: string): void;
  readonly placeholder?: string | undefined;
  readonly type?: "text" | "search" | "date" | "datetime-local" | undefined;
  /** Values to choose from while typing; others may be typed as well. */
  readonly suggestions?: readonly string[] | undefined;
  readonly disabled?: boolean | undefined;
  readonly name?: string | undefined;
  readonly onEnter?: (() => void) | undefined;
}

/** A line of text. */
export function TextField(props: TextFieldProps): JSX.Element {
  const list = createUniqueId();
  return (
    <Field {...props}>
      {(ids) => (
        <>
          <input
            id={ids.id}
            class="input"
            type={props.type ?? "text"}
            name={props.name}
            value={props.value}
            placeholder={props.placeholder}
            disabled={props.disabled}
            autocomplete="off"
            spellcheck={false}
            list={props.suggestions ? list : undefined}
            aria-describedby={ids.describedBy}
            aria-invalid={props.error ? true : undefined}
            onInput={(event) => props.onInput(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter") props.onEnter?.();
            }}
          />
          <Show when={props.suggestions}>
            <datalist id={list}>
              <For each={props.suggestions}>{(one) => <option value={one} />}</For>
            </datalist>
          </Show>
        </>
      )}
    </Field>
  );
}

export interface NumberFieldProps extends FieldProps {
  /** The text as typed; `parseNumber` of format/numbers reads it. */
  readonly value: string;
  onInput(value: string): void;
  readonly placeholder?: string | undefined;
  /** The value that an empty field has; it is shown as such. */
  readonly initial?: string | undefined;
  /** Stands behind the number, such as `%`. */
  readonly unit?: string | undefined;
  /** The step of the arrow keys; 1 without it. Bounds keep the arrow keys within them, typing is free. */
  readonly step?: number | undefined;
  readonly low?: number | undefined;
  readonly high?: number | undefined;
  readonly disabled?: boolean | undefined;
  readonly name?: string | undefined;
}

/** A number as text: it takes any input, and ArrowUp and ArrowDown change it by `step`. */
export function NumberField(props: NumberFieldProps): JSX.Element {
  function move(event: KeyboardEvent): void {
    const direction = event.key === "ArrowUp" ? 1 : event.key === "ArrowDown" ? -1 : 0;
    if (direction === 0) return;
    const from = Number(props.value === "" ? (props.initial ?? "0") : props.value);
    if (!Number.isFinite(from)) return;
    event.preventDefault();
    const step = (props.step ?? 1) * (event.shiftKey ? 10 : 1);
    const next = Number((from + direction * step).toPrecision(12)); // 0.1 + 0.2 is 0.3
    props.onInput(String(Math.min(props.high ?? next, Math.max(props.low ?? next, next))));
  }
  return (
    <Field {...props}>
      {(ids) => (
        <div class="input-with-unit">
          <Show when={props.initial !== undefined && props.value === ""}>
            <span class="input-default" aria-hidden="true">
              default
            </span>
          </Show>
          <input
            id={ids.id}
            class="input number"
            classList={{ "has-default": props.initial !== undefined }}
            type="text"
            inputmode="decimal"
            name={props.name}
            value={props.value}
            placeholder={props.initial ?? props.placeholder}
            disabled={props.disabled}
            autocomplete="off"
            aria-describedby={ids.describedBy}
            aria-invalid={props.error ? true : undefined}
            onInput={(event) => props.onInput(event.currentTarget.value)}
            onKeyDown={move}
          />
          <Show when={props.unit}>
            <span class="input-unit" classList={{ wide: (props.unit?.length ?? 0) > 2 }}>
              {props.unit}
            </span>
          </Show>
        </div>
      )}
    </Field>
  );
}

export interface Choice {
  readonly value: string;
  readonly label: string;
}

export interface SelectProps extends FieldProps {
  readonly value: string;
  readonly choices: readonly Choice[];
  onChange(value: string): void;
  readonly disabled?: boolean | undefined;
  readonly name?: string | undefined;
}

/** A choice of few. */
export function Select(props: SelectProps): JSX.Element {
  return (
    <Field {...props}>
      {(ids) => (
        <select
          id={ids.id}
          class="input"
          name={props.name}
          disabled={props.disabled}
          aria-describedby={ids.describedBy}
          aria-invalid={props.error ? true : undefined}
          onChange={(event) => props.onChange(event.currentTarget.value)}
        >
          <For each={props.choices}>
            {(one) => (
              <option value={one.value} selected={one.value === props.value}>
                {one.label}
              </option>
            )}
          </For>
        </select>
      )}
    </Field>
  );
}

export interface SwitchProps {
  readonly label: string;
  readonly checked: boolean;
  onChange(checked: boolean): void;
  readonly hint?: string | undefined;
  readonly error?: string | undefined;
  readonly disabled?: boolean | undefined;
}

/** Something that is on or off. */
export function Switch(props: SwitchProps): JSX.Element {
  const id = createUniqueId();
  return (
    <div class="switch-field">
      <input
        id={id}
        class="switch"
        type="checkbox"
        role="switch"
        aria-checked={props.checked}
        checked={props.checked}
        disabled={props.disabled}
        aria-describedby={props.hint || props.error ? `${id}-hint` : undefined}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      <label for={id}>{props.label}</label>
      <Show when={props.error ?? props.hint}>
        <p class={props.error ? "field-error" : "field-hint"} id={`${id}-hint`}>
          {props.error ?? props.hint}
        </p>
      </Show>
    </div>
  );
}
