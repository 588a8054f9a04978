import { createUniqueId, type JSX } from "solid-js";
import "./definition.css";

export interface DefinitionProps {
  /** The word that is defined, which is the button. */
  readonly term: string;
  /** The definition: text, formula, source. */
  readonly children: JSX.Element;
  /** Shows a small mark instead of the term; the term is read to screen readers. */
  readonly mark?: boolean | undefined;
}

const DELAY_MS = 250;

/** A word whose definition is shown on hover, on focus and on a click; Escape hides it. */
export function Definition(props: DefinitionProps): JSX.Element {
  const id = createUniqueId();
  let button: HTMLButtonElement | undefined;
  let popover: HTMLDivElement | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function place(): void {
    if (button === undefined || popover === undefined) return;
    const at = button.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = popover;
    const left = Math.max(8, Math.min(at.left, window.innerWidth - width - 8));
    const below = at.bottom + 6;
    const top = below + height > window.innerHeight - 8 ? Math.max(8, at.top - height - 6) : below;
    popover.style.left = `${left}px`;
    popover.style.top = `${top}px`;
  }
  function show(): void {
    clearTimeout(timer);
    if (popover?.isConnected !== true || popover.matches(":popover-open")) return;
    popover.showPopover();
    place();
  }
  function hide(): void {
    clearTimeout(timer);
    if (popover?.isConnected === true && popover.matches(":popover-open")) popover.hidePopover();
  }
  function later(action: () => void): void {
    clearTimeout(timer);
    timer = setTimeout(action, DELAY_MS);
  }
  return (
    <span class="definition" onPointerEnter={() => later(show)} onPointerLeave={() => later(hide)}>
      <button
        ref={button}
        type="button"
        classList={{ "definition-term": !props.mark, "definition-mark": props.mark === true }}
        aria-label={props.mark === true ? `About ${props.term}` : undefined}
        aria-describedby={id}
        onClick={show}
        onFocus={() => {
          if (button?.matches(":focus-visible") === true) show();
        }}
        onBlur={hide}
        onKeyDown={(event) => {
          if (event.key === "Escape") hide();
        }}
      >
        {props.mark === true ? "?" : props.term}
      </button>
      <div ref={popover} id={id} class="definition-text" popover="manual" role="tooltip">
        {props.children}
      </div>
    </span>
  );
}
