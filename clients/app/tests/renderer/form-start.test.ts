/** The start of a form says each mistake at its field, once it is one, and what the broker refuses. */

import { ValidationError } from "@backtestr/client/page";
import { createRoot, createSignal } from "solid-js";
import { afterEach, describe, expect, test } from "vitest";
import { createFormStart, type FormStart } from "../../renderer/src/screens/run/form-start";
import type { FieldErrors } from "../../renderer/src/screens/run/run-config";
import { EMPTY_DRAFT, type RunDraft } from "../../renderer/src/screens/run/run-draft";
import type { Verdict } from "../../renderer/src/stores/asking";

interface Form extends FormStart {
  setDraft(draft: RunDraft): void;
  setErrors(errors: FieldErrors): void;
  setVerdict(verdict: Verdict<unknown>): void;
}

const ends: (() => void)[] = [];

function form(): Form {
  return createRoot((end) => {
    ends.push(end);
    const [draft, setDraft] = createSignal<RunDraft>(EMPTY_DRAFT);
    const [errors, setErrors] = createSignal<FieldErrors>({});
    const [verdict, setVerdict] = createSignal<Verdict<unknown>>({ kind: "none" });
    return { ...createFormStart(draft, errors, verdict), setDraft, setErrors, setVerdict };
  });
}

afterEach(() => {
  for (const end of ends.splice(0)) end();
  document.body.replaceChildren();
});

const refused = (...paths: string[]) => new ValidationError("too slow", { paths });
const nothing = async (): Promise<void> => undefined;

describe("a mistake of this page", () => {
  test("in an empty field is none before the first try, nor in a form that is as new", async () => {
    const one = form();
    one.setErrors({ symbols: "Choose some.", algorithm: "Choose one." });
    expect([one.mistakes(), one.errorOf("symbols")]).toEqual([[], undefined]);
    one.setDraft({ ...EMPTY_DRAFT, algorithm: "none" });
    expect(one.mistakes()).toEqual(["Choose one."]);
    await one.start(undefined, nothing);
    expect(one.mistakes()).toEqual(["Choose some.", "Choose one."]);
    one.cleared();
    expect(one.mistakes()).toEqual(["Choose one."]);
  });

  test("is said once, at each of its fields", () => {
    const one = form();
    one.setErrors({ "parameters.fast": "fast < slow", "parameters.slow": "fast < slow" });
    expect(one.mistakes()).toEqual(["fast < slow"]);
    expect([one.errorOf("parameters.fast"), one.errorOf("parameters.slow")]).toEqual(["fast < slow", "fast < slow"]);
  });

  test("keeps the form from being sent, and gets the cursor", async () => {
    document.body.innerHTML = '<form class="run-form"><details><input aria-invalid="true" id="i"></details></form>';
    const one = form();
    const sent: unknown[] = [];
    await one.start(undefined, async (request) => void sent.push(request));
    expect(sent).toEqual([]);
    expect(document.querySelector("details")?.open).toBe(true);
    expect(document.activeElement?.id).toBe("i");
  });
});

describe("a refusal of the broker", () => {
  test("of the start is at its fields until the form is changed", async () => {
    const one = form();
    const error = refused("$.parameters.fast", "$.initialCapital");
    const starting: boolean[] = [];
    await one.start({ a: 1 }, async () => {
      starting.push(one.starting());
      throw error;
    });
    expect([...starting, one.starting()]).toEqual([true, false]);
    expect(one.refusal()).toMatchObject({ error });
    expect(["parameters.fast", "capital", "slippage"].map(one.errorOf)).toEqual(["too slow", "too slow", undefined]);
    one.changed();
    expect([one.refusal(), one.errorOf("capital")]).toEqual([undefined, undefined]);
  });

  test("while the form is typed comes after that of the start, and after this page's own", async () => {
    const one = form();
    one.setVerdict({ kind: "refused", error: new ValidationError("as typed", { path: "$.warmup" }) });
    expect(one.errorOf("warmup")).toBe("as typed");
    await one.start({}, () => Promise.reject(refused("$.warmup")));
    expect(one.errorOf("warmup")).toBe("too slow");
    one.setErrors({ warmup: "A whole number." });
    expect(one.errorOf("warmup")).toBe("A whole number.");
  });

  test("is gone with the next try", async () => {
    const one = form();
    await one.start({}, () => Promise.reject(refused("$.warmup")));
    const given: unknown[] = [];
    await one.start({ b: 2 }, async (request) => {
      given.push(request, one.refusal());
    });
    expect(given).toEqual([{ b: 2 }, undefined]);
    expect(one.errorOf("warmup")).toBeUndefined();
  });
});
