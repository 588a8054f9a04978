import { createEffect, createUniqueId, type JSX, onCleanup, Show } from "solid-js";
import { Button } from "./button";
import "./dialog.css";

export interface DialogProps {
  readonly title: string;
  readonly open: boolean;
  /** Called when it was closed, by Escape too. */
  onClose(): void;
  readonly children: JSX.Element;
  /** The buttons at its end. Without them there is a button that closes it. */
  readonly actions?: JSX.Element | undefined;
  readonly wide?: boolean | undefined;
}

/** A modal dialog. The page behind it can be neither clicked nor read until it is closed. */
export function Dialog(props: DialogProps): JSX.Element {
  const id = createUniqueId();
  let element: HTMLDialogElement | undefined;
  createEffect(() => {
    if (props.open && element?.open === false) element.showModal();
    else if (!props.open && element?.open === true) element.close();
  });
  onCleanup(() => element?.close());
  return (
    <dialog
      ref={element}
      class="dialog"
      classList={{ wide: props.wide === true }}
      aria-labelledby={id}
      onClose={() => {
        if (props.open) props.onClose();
      }}
    >
      <Show when={props.open}>
        <header class="dialog-header">
          <h2 id={id}>{props.title}</h2>
          <Button kind="quiet" aria-label="Close" onClick={() => props.onClose()}>
            ✕
          </Button>
        </header>
        <div class="dialog-body">{props.children}</div>
        <Show when={props.actions}>
          <footer class="dialog-actions">{props.actions}</footer>
        </Show>
      </Show>
    </dialog>
  );
}
