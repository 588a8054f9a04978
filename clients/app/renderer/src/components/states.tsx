/** The states of a view without its data: empty, waiting, failed. */

import { createSignal, type JSX, onCleanup, Show } from "solid-js";
import { seconds } from "../format/times";
import "./states.css";

export interface EmptyStateProps {
  readonly title: string;
  /** Buttons or links that help. */
  readonly children?: JSX.Element | undefined;
  readonly actions?: JSX.Element | undefined;
}

/** Says that there is nothing yet, and how to begin. */
export function EmptyState(props: EmptyStateProps): JSX.Element {
  return (
    <div class="empty-state">
      <h2>{props.title}</h2>
      <Show when={props.children}>
        <div class="muted">{props.children}</div>
      </Show>
      <Show when={props.actions}>
        <div class="empty-actions">{props.actions}</div>
      </Show>
    </div>
  );
}

export interface WaitingProps {
  /** Names what is waited for, such as `the broker's list of series`. */
  readonly what: string;
  /** When the wait began, in milliseconds since 1970; now without it. */
  readonly since?: number | undefined;
  /** Buttons or links for whoever does not wait. */
  readonly actions?: JSX.Element | undefined;
}

/** Says what is waited for and for how long; nothing is shown in the first 200 ms. */
export function Waiting(props: WaitingProps): JSX.Element {
  const began = Date.now();
  const [now, setNow] = createSignal(Date.now());
  const timer = setInterval(() => setNow(Date.now()), 200);
  onCleanup(() => clearInterval(timer));
  const waited = (): number => now() - (props.since ?? began);
  return (
    <div class="waiting" role="status">
      <Show when={waited() >= 200}>
        <span class="waiting-mark" aria-hidden="true" />
        <span>
          Waiting for {props.what}
          <Show when={waited() >= 1000}>
            <span aria-hidden="true">, {seconds(waited())} so far</span>
          </Show>
        </span>
        <Show when={waited() >= 5000}>{props.actions}</Show>
      </Show>
    </div>
  );
}

export interface ProgressProps {
  readonly label: string;
  /** From 0 to 1; without it the progress is not known. */
  readonly share?: number | undefined;
  /** Stands behind the bar, such as `42 %, 3 s left`. */
  readonly text?: string | undefined;
}

/** A bar of progress with its words. */
export function Progress(props: ProgressProps): JSX.Element {
  return (
    <div class="progress">
      {/* A bar without a value is one whose progress is not known; to set its value to undefined throws. */}
      <Show when={props.share !== undefined} fallback={<progress aria-label={props.label} max={1} />}>
        <progress aria-label={props.label} max={1} value={props.share ?? 0} />
      </Show>
      <Show when={props.text}>
        <span class="small muted">{props.text}</span>
      </Show>
    </div>
  );
}
