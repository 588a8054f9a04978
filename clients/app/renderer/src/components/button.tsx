import { type JSX, splitProps } from "solid-js";
import "./button.css";

export interface ButtonProps extends JSX.ButtonHTMLAttributes<HTMLButtonElement> {
  /** `primary` is the one action of a screen; `quiet` has no frame until it is hovered. */
  readonly kind?: "primary" | "plain" | "quiet" | "danger";
  /** Shows that the action is under way, and takes no further click. */
  readonly busy?: boolean;
}

/** A button. It is `type="button"` unless said otherwise. */
export function Button(props: ButtonProps): JSX.Element {
  const [own, rest] = splitProps(props, ["kind", "busy", "class", "children", "disabled", "type"]);
  return (
    <button
      {...rest}
      type={own.type ?? "button"}
      class={`button ${own.kind ?? "plain"} ${own.class ?? ""}`}
      disabled={own.disabled === true || own.busy === true}
      aria-busy={own.busy === true}
    >
      {own.children}
    </button>
  );
}

export interface LinkButtonProps extends JSX.AnchorHTMLAttributes<HTMLAnchorElement> {
  readonly kind?: "primary" | "plain" | "quiet";
}

/** A link that looks like a button. */
export function LinkButton(props: LinkButtonProps): JSX.Element {
  const [own, rest] = splitProps(props, ["kind", "class", "children"]);
  return (
    <a {...rest} class={`button ${own.kind ?? "plain"} ${own.class ?? ""}`}>
      {own.children}
    </a>
  );
}
