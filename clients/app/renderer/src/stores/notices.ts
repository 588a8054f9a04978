/** Notices: short sentences at the edge of the page, which take no focus, and go when they are dismissed or undone. */

import { type Accessor, createSignal } from "solid-js";

export interface Notice {
  readonly id: number;
  readonly text: string;
  readonly kind: "info" | "error";
  readonly action?: { readonly label: string; run(): void } | undefined;
  /** When it goes by itself, in milliseconds since 1970. */
  readonly until?: number | undefined;
}

export interface NoticesStore {
  readonly shown: Accessor<readonly Notice[]>;
  /** Shows a notice, and returns what removes it. An error stays until it is dismissed. */
  show(text: string, options?: { kind?: Notice["kind"]; action?: Notice["action"]; ms?: number }): () => void;
  dismiss(id: number): void;
}

/** Milliseconds that a notice stays which asks for nothing. */
const SHOWN_MS = 6_000;
/** The notices that are kept at most; an older one gives way. */
const MOST = 5;

export function createNotices(): NoticesStore {
  const [shown, setShown] = createSignal<readonly Notice[]>([]);
  let last = 0;
  const dismiss = (id: number): void => {
    setShown((all) => all.filter((one) => one.id !== id));
  };
  return {
    shown,
    dismiss,
    show: (text, options = {}) => {
      last += 1;
      const id = last;
      const kind = options.kind ?? "info";
      const ms = options.ms ?? (kind === "info" ? SHOWN_MS : undefined);
      const until = ms === undefined ? undefined : Date.now() + ms;
      setShown((all) => [...all.slice(1 - MOST), { id, text, kind, action: options.action, until }]);
      const timer = ms === undefined ? undefined : setTimeout(() => dismiss(id), ms);
      return () => {
        clearTimeout(timer);
        dismiss(id);
      };
    },
  };
}
