import { BacktestrError } from "@backtestr/client/page";
import { For, type JSX, Show } from "solid-js";
import { HostError } from "../host/host";
import { Button, LinkButton } from "./button";
import "./states.css";

/** A button that may help against an error. */
export interface Remedy {
  readonly label: string;
  run(): void;
}

export interface ErrorPanelProps {
  readonly error: unknown;
  /** The first line: what failed, such as `The import was refused`. */
  readonly title?: string | undefined;
  /** Buttons for what this screen can do about it. */
  readonly actions?: readonly Remedy[] | undefined;
  /** Shows a warning instead of an error. */
  readonly mild?: boolean | undefined;
  /** Replaces the broker's words of details, such as a view of the file. */
  readonly children?: JSX.Element | undefined;
}

interface Advice {
  readonly action: string;
  readonly description: string;
  readonly automatic?: boolean;
}

/** The code of an error, empty where it has none. */
export function codeOf(error: unknown): string {
  return error instanceof BacktestrError || error instanceof HostError ? error.code : "";
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function adviceOf(error: unknown): readonly Advice[] {
  return error instanceof BacktestrError || error instanceof HostError ? error.recoveryActions : [];
}

/** The screens where advice of the broker can be followed, by the name of the advice. */
const PLACES: { readonly [action: string]: readonly [label: string, hash: string] } = {
  import_data: ["Import a file", "#/data"],
  list_data: ["See the data", "#/data"],
  fix_algorithm: ["See the algorithms", "#/algorithms"],
  free_space: ["See the results", "#/runs"],
};

function placesOf(error: unknown): readonly (readonly [label: string, hash: string])[] {
  const here = window.location.hash;
  const found = adviceOf(error).flatMap((one) => {
    const place = PLACES[one.action];
    return place === undefined || here.startsWith(place[1]) ? [] : [place];
  });
  return found;
}

function detailsOf(error: unknown): readonly (readonly [string, string])[] {
  if (!(error instanceof BacktestrError) || error.details === null) return [];
  return Object.entries(error.details).map(([name, value]) => [
    name,
    typeof value === "string" ? value : JSON.stringify(value, null, 2),
  ]);
}

/** An error with its message, code, details, advice, and the buttons that help. */
export function ErrorPanel(props: ErrorPanelProps): JSX.Element {
  return (
    <div class="error-panel" classList={{ mild: props.mild === true }} role="alert">
      <div class="error-title">
        <strong>{props.title ?? "This did not work"}</strong>
        <Show when={codeOf(props.error)}>
          <code>{codeOf(props.error)}</code>
        </Show>
      </div>
      <p class="error-message">{messageOf(props.error)}</p>
      {props.children}
      <Show when={adviceOf(props.error).length > 0}>
        <ul class="error-advice small">
          <For each={adviceOf(props.error)}>
            {(one) => (
              <li>
                {one.description}
                <Show when={one.automatic}> (the app does this by itself)</Show>
              </li>
            )}
          </For>
        </ul>
      </Show>
      <Show when={(props.actions?.length ?? 0) + placesOf(props.error).length > 0}>
        <div class="actions">
          <For each={props.actions}>{(one) => <Button onClick={() => one.run()}>{one.label}</Button>}</For>
          <For each={placesOf(props.error)}>{([label, hash]) => <LinkButton href={hash}>{label}</LinkButton>}</For>
        </div>
      </Show>
      <Show when={detailsOf(props.error).length > 0}>
        <details class="small">
          <summary>Details</summary>
          <For each={detailsOf(props.error)}>
            {([name, value]) => (
              <>
                <strong>{name}</strong>
                <pre tabindex={0}>{value}</pre>
              </>
            )}
          </For>
        </details>
      </Show>
    </div>
  );
}

/** Says why what is shown may be old; nothing where there is no reason. */
export function OldNote(props: { readonly error: unknown }): JSX.Element {
  return (
    <Show when={props.error !== undefined}>
      <p class="small muted" role="status">
        This may be old, since it could not be read again: {messageOf(props.error)}
      </p>
    </Show>
  );
}
