import { createEffect, createSignal, createUniqueId, For, type JSX, on, onCleanup, Show } from "solid-js";
import { type Command, matching } from "./commands";
import "./command-palette.css";

export interface CommandPaletteProps {
  readonly open: boolean;
  onClose(): void;
  readonly commands: readonly Command[];
}

/** A list of commands that is narrowed by typing. The arrow keys choose, Enter runs, Escape closes. */
export function CommandPalette(props: CommandPaletteProps): JSX.Element {
  const id = createUniqueId();
  let element: HTMLDialogElement | undefined;
  const [typed, setTyped] = createSignal("");
  const [at, setAt] = createSignal(0);
  const found = (): readonly Command[] => matching(props.commands, typed()).slice(0, 50);
  createEffect(() => {
    if (props.open && element?.open === false) {
      setTyped("");
      setAt(0);
      element.showModal();
    } else if (!props.open && element?.open === true) element.close();
  });
  onCleanup(() => element?.close());
  createEffect(
    on([at, found], () => document.getElementById(`${id}-${at()}`)?.scrollIntoView({ block: "nearest" }), {
      defer: true,
    }),
  );
  function run(command: Command | undefined): void {
    if (command === undefined) return;
    props.onClose();
    command.run();
  }
  function keyed(event: KeyboardEvent): void {
    const count = found().length;
    if (event.key === "ArrowDown") setAt((at() + 1) % Math.max(1, count));
    else if (event.key === "ArrowUp") setAt((at() + count - 1) % Math.max(1, count));
    else if (event.key === "Enter") run(found()[at()]);
    else return;
    event.preventDefault();
  }
  return (
    <dialog
      ref={element}
      class="palette"
      aria-label="Commands"
      onClose={() => {
        if (props.open) props.onClose();
      }}
    >
      <Show when={props.open}>
        <input
          class="palette-input"
          type="text"
          role="combobox"
          aria-label="Command"
          aria-expanded="true"
          aria-controls={`${id}-list`}
          aria-activedescendant={found().length === 0 ? undefined : `${id}-${at()}`}
          placeholder="Type a command, a series or a backtest"
          autocomplete="off"
          autofocus
          value={typed()}
          onInput={(event) => {
            setTyped(event.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={keyed}
        />
        <div class="palette-list" id={`${id}-list`} role="listbox" aria-label="Commands">
          <For each={found()}>
            {(command, place) => (
              <div
                id={`${id}-${place()}`}
                class="palette-item"
                role="option"
                tabindex={-1}
                aria-selected={place() === at()}
                onClick={() => run(command)}
                onPointerMove={() => setAt(place())}
              >
                <span>{command.title}</span>
                <Show when={command.keys}>
                  <kbd>{command.keys}</kbd>
                </Show>
              </div>
            )}
          </For>
        </div>
        <Show when={found().length === 0}>
          <p class="palette-none muted">No command has these words.</p>
        </Show>
      </Show>
    </dialog>
  );
}
