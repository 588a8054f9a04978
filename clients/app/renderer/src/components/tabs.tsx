import { createUniqueId, For, type JSX } from "solid-js";
import "./tabs.css";

export interface Tab {
  readonly id: string;
  readonly label: string;
}

export interface TabsProps {
  readonly label: string;
  readonly tabs: readonly Tab[];
  readonly selected: string;
  onSelect(id: string): void;
  /** The panel of the selected tab. */
  readonly children: JSX.Element;
}

/** Tabs with one panel. The arrow keys go from tab to tab. */
export function Tabs(props: TabsProps): JSX.Element {
  const id = createUniqueId();
  function move(event: KeyboardEvent): void {
    const at = props.tabs.findIndex((one) => one.id === props.selected);
    const last = props.tabs.length - 1;
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const tab = props.tabs[(next + last + 1) % (last + 1)];
    if (tab === undefined) return;
    props.onSelect(tab.id);
    document.getElementById(`${id}-${tab.id}`)?.focus();
  }
  return (
    <div class="tabs">
      <div class="tab-list" role="tablist" aria-label={props.label} onKeyDown={move}>
        <For each={props.tabs}>
          {(tab) => (
            <button
              type="button"
              role="tab"
              id={`${id}-${tab.id}`}
              class="tab"
              aria-selected={tab.id === props.selected}
              aria-controls={`${id}-panel`}
              tabindex={tab.id === props.selected ? 0 : -1}
              onClick={() => props.onSelect(tab.id)}
            >
              {tab.label}
            </button>
          )}
        </For>
      </div>
      <div class="tab-panel" role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${props.selected}`}>
        {props.children}
      </div>
    </div>
  );
}
