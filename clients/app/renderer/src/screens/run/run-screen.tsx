import { createEffect, createMemo, type JSX, on, Show } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel, messageOf } from "../../components/error-panel";
import { AlgorithmFields } from "./algorithm-fields";
import { DataFields } from "./data-fields";
import { createFormStart } from "./form-start";
import { MoneyFields } from "./money-fields";
import { OptionFields } from "./option-fields";
import { createProbe, ProbeVerdict } from "./probe";
import { RangePreview } from "./range-preview";
import { build, draftOf } from "./run-config";
import { EMPTY_DRAFT, type RunDraft, withTyped } from "./run-draft";
import { createRunForm, FormGate, type FormPart, keptWords, Mistakes } from "./run-form";
import { asCommand, asPython } from "./run-text";

/** The form of a backtest. What is typed is kept for the next visit, and for every other page. */
export function RunScreen(props: { readonly copyOf?: string | undefined }): JSX.Element {
  const app = useApp();
  const { draft, algorithms, series } = createRunForm(app);
  const built = createMemo(() => build(draft.value(), algorithms(), series()));
  const probe = createProbe(app.client, () => built().config, series);
  const form = createFormStart(draft.value, () => built().errors, probe);
  let typed: [before: RunDraft, now: RunDraft][] | undefined; // while a configuration is read that is to be copied
  function change(part: Partial<RunDraft>): void {
    typed?.push([draft.value(), { ...draft.value(), ...part }]);
    draft.change((now) => ({ ...now, ...part }));
    form.changed();
  }
  createEffect(
    on(
      () => props.copyOf,
      (id) => {
        if (id !== undefined) void copy(id);
      },
    ),
  );
  async function copy(id: string): Promise<void> {
    typed = [];
    try {
      const { config } = await app.client.request("GetBacktestResults", { backtestId: id, tables: [] });
      const before = draft.value();
      change(typed.reduce((next, [from, to]) => withTyped(next, from, to), draftOf(config, algorithms())));
      app.go({ screen: "run" });
      app.notices.show(`The form has the configuration of backtest ${id.slice(0, 8)}.`, {
        action: { label: "Undo", run: () => change(before) },
      });
    } catch (error) {
      app.notices.show(`The configuration of ${id} could not be read: ${messageOf(error)}`, { kind: "error" });
    }
    typed = undefined;
  }
  function start(): Promise<void> {
    return form.start(built().config, async (config) => {
      const { backtestId } = await app.client.request("StartBacktest", { backtestId: crypto.randomUUID(), ...config });
      app.go({ screen: "backtest", id: backtestId });
    });
  }
  const part: FormPart = {
    get draft() {
      return draft.value();
    },
    change,
    errorOf: form.errorOf,
    get algorithms() {
      return algorithms();
    },
    get series() {
      return series();
    },
  };

  return (
    <section class="screen run-screen" aria-label="Run">
      <header class="screen-header">
        <h1>Run a backtest</h1>
        <span class="muted small">{keptWords(app, draft.unsaved())}</span>
        <div class="actions">
          <Button
            kind="quiet"
            onClick={() => {
              const before = draft.value();
              change(EMPTY_DRAFT);
              form.cleared();
              app.notices.show("The form is empty again.", { action: { label: "Undo", run: () => change(before) } });
            }}
          >
            Clear
          </Button>
        </div>
      </header>
      <FormGate series={series()}>
        <form
          class="run-columns"
          onSubmit={(event) => {
            event.preventDefault();
            void start();
          }}
        >
          <div class="run-form">
            <AlgorithmFields {...part} />
            <DataFields {...part} />
            <MoneyFields {...part} />
            <OptionFields {...part} />
          </div>
          <div class="run-side">
            <h2 class="visually-hidden">Prices, checks and start</h2>
            <RangePreview draft={draft.value()} series={series()} />
            <ProbeVerdict probe={probe} />
            <Show when={form.refusal()}>
              {(one) => <ErrorPanel error={one().error} title="The broker did not start it" />}
            </Show>
            <Show when={form.mistakes().length > 0}>
              <Mistakes mistakes={form.mistakes()} />
            </Show>
            <div class="run-actions">
              <Button kind="primary" type="submit" busy={form.starting()}>
                {form.starting() ? "Starting" : "Start the backtest"}
              </Button>
              <CopyButtons config={built().config} />
            </div>
          </div>
        </form>
      </FormGate>
    </section>
  );
}

function CopyButtons(props: { readonly config: ReturnType<typeof build>["config"] }): JSX.Element {
  const { notices } = useApp();
  async function copy(text: string, name: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      notices.show(`Copied as ${name}.`);
    } catch {
      notices.show(`The browser lets nothing be copied. As ${name}: ${text}`, { kind: "error" });
    }
  }
  return (
    <>
      <Button
        disabled={props.config === undefined}
        onClick={() => props.config && void copy(asPython(props.config), "Python")}
      >
        Copy as Python
      </Button>
      <Button
        disabled={props.config === undefined}
        onClick={() => props.config && void copy(asCommand(props.config), "a command")}
      >
        Copy as CLI
      </Button>
    </>
  );
}
