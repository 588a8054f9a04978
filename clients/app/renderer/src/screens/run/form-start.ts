/** The start of a form: the mistakes that keep it from being sent, the request, and what the broker says of both. */

import { type Accessor, createMemo, createSignal } from "solid-js";
import { messageOf } from "../../components/error-panel";
import type { Verdict } from "../../stores/asking";
import { type FieldErrors, fieldsOf } from "./run-config";
import type { RunDraft } from "./run-draft";

export interface FormStart {
  /** True while the request is on its way. */
  readonly starting: Accessor<boolean>;
  /** The error with which the broker has refused the latest start, until the form is changed. */
  readonly refusal: Accessor<{ readonly error: unknown } | undefined>;
  /** What keeps the form from being sent, each reason once. */
  readonly mistakes: Accessor<readonly string[]>;
  /** The reason of a field, of this page or of the broker. */
  errorOf(field: string): string | undefined;
  /** Notes that the form was changed: what the broker has refused is no more. */
  changed(): void;
  /** Notes that the form is as new: what is empty in it is no mistake yet. */
  cleared(): void;
  /** Sends the request of the form; where it has none, or the broker refuses it, the first mistake is pointed at. */
  start<Request>(request: Request | undefined, send: (request: Request) => Promise<void>): Promise<void>;
}

/** Follows a form: its draft, this page's `errors` of it by field, and the broker's `verdict` while it is typed. */
export function createFormStart(
  draft: Accessor<RunDraft>,
  errors: Accessor<FieldErrors>,
  verdict: Accessor<Verdict<unknown>>,
): FormStart {
  const [refusal, setRefusal] = createSignal<{ readonly error: unknown; readonly fields: FieldErrors }>();
  const [starting, setStarting] = createSignal(false);
  const [tried, setTried] = createSignal(false);
  const isShown = (field: string): boolean => tried() || !isEmpty(draft(), field);
  const mistakes = createMemo(() => {
    const shown = Object.entries(errors()).filter(([field]) => isShown(field));
    return [...new Set(shown.map(([, error]) => error))];
  });
  const refusedWhileTyped = createMemo((): FieldErrors => {
    const now = verdict();
    return now.kind === "refused" ? byField(now.error) : {};
  });
  return {
    starting,
    refusal,
    mistakes,
    errorOf: (field) => {
      const own = errors()[field];
      if (own !== undefined && isShown(field)) return own;
      return refusal()?.fields[field] ?? refusedWhileTyped()[field];
    },
    changed: () => void setRefusal(undefined),
    cleared: () => void setTried(false),
    start: async (request, send) => {
      setTried(true);
      setRefusal(undefined);
      if (request === undefined) {
        focusFirstError();
        return;
      }
      setStarting(true);
      try {
        await send(request);
      } catch (error) {
        setRefusal({ error, fields: byField(error) });
        queueMicrotask(focusFirstError);
      }
      setStarting(false);
    },
  };
}

function byField(error: unknown): FieldErrors {
  return Object.fromEntries(fieldsOf(error).map((field) => [field, messageOf(error)]));
}

/** An empty field of a form that was not sent yet is no mistake. */
function isEmpty(draft: RunDraft, field: string): boolean {
  if (field.includes(".")) return false;
  const value = draft[field as keyof RunDraft];
  return value === "" || (Array.isArray(value) && value.length === 0);
}

/** Opens the section of the first mistake, and puts the cursor there. */
function focusFirstError(): void {
  const input = document.querySelector<HTMLElement>(".run-form [aria-invalid='true']");
  input?.closest("details")?.setAttribute("open", "");
  input?.focus();
}
