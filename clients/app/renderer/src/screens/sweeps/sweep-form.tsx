import type { SweepAccepted } from "@backtestr/client/page";
import { createEffect, createMemo, For, type JSX, Match, on, Show, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel, messageOf } from "../../components/error-panel";
import { count } from "../../format/numbers";
import { seconds } from "../../format/times";
import { createAsking, type Verdict } from "../../stores/asking";
import { DataFields } from "../run/data-fields";
import { createFormStart } from "../run/form-start";
import { MoneyFields } from "../run/money-fields";
import { OptionSections } from "../run/option-fields";
import type { RunDraft } from "../run/run-draft";
import { createRunForm, FormGate, keptWords, Mistakes } from "../run/run-form";
import { SearchFields } from "./search-fields";
import { SpaceFields, type SpacePart } from "./space-fields";
import { EMPTY_SWEEP, openSweepDraft, type SweepDraft } from "./sweep-draft";
import { buildSweep, draftsOf } from "./sweep-request";
import "./sweeps.css";

/** Milliseconds of rest before the broker counts: it takes some milliseconds. */
const REST_MS = 250;

/** The form of a sweep: what the screen Run has, and the space, the search, and what both come to. */
export function SweepForm(props: { readonly copyOf?: string | undefined }): JSX.Element {
  const app = useApp();
  const { draft: run, algorithms, series } = createRunForm(app);
  const sweep = openSweepDraft(app.drafts);
  const built = createMemo(() => buildSweep(run.value(), sweep.value(), algorithms(), series()));
  const counted = createAsking(
    () => built().request,
    (request) => request,
    (request) => app.client.request("StartSweep", { ...request, dryRun: true }),
    REST_MS,
  );
  const form = createFormStart(run.value, () => built().errors, counted);
  function change(part: Partial<RunDraft>): void {
    run.change((now) => ({ ...now, ...part }));
    form.changed();
  }
  function changeSweep(part: Partial<SweepDraft>): void {
    sweep.change((now) => ({ ...now, ...part }));
    form.changed();
  }
  createEffect(
    on(
      () => algorithms().length > 0 && run.known() && sweep.known() && props.copyOf,
      (id) => {
        if (id) void copy(id);
      },
    ),
  );
  async function copy(id: string): Promise<void> {
    try {
      const details = await app.client.request("GetSweepStatus", { sweepId: id });
      const before = [run.value(), sweep.value()] as const;
      const next = draftsOf(details.sweep, algorithms(), sweep.value());
      change(next.run);
      changeSweep(next.sweep);
      app.go({ screen: "sweep" });
      const undo = (): void => {
        change(before[0]);
        changeSweep(before[1]);
      };
      app.notices.show(`The form has the space of sweep ${id.slice(0, 8)}.`, { action: { label: "Undo", run: undo } });
    } catch (error) {
      app.notices.show(`The sweep ${id} could not be read: ${messageOf(error)}`, { kind: "error" });
    }
  }
  function start(): Promise<void> {
    return form.start(built().request, async (request) => {
      const sweepId = crypto.randomUUID();
      await app.client.request("StartSweep", { sweepId, ...request });
      app.go({ screen: "sweeps", id: sweepId });
    });
  }
  const part: SpacePart = {
    get draft() {
      return run.value();
    },
    change,
    errorOf: form.errorOf,
    get algorithms() {
      return algorithms();
    },
    get series() {
      return series();
    },
    get sweep() {
      return sweep.value();
    },
    changeSweep,
    get counts() {
      return built().counts;
    },
  };
  return (
    <section class="screen run-screen" aria-label="Sweep">
      <header class="screen-header">
        <h1>Sweep</h1>
        <span class="muted small">{keptWords(app, run.unsaved() || sweep.unsaved())}</span>
        <div class="actions">
          <Button
            kind="quiet"
            onClick={() => {
              const before = sweep.value();
              changeSweep(EMPTY_SWEEP);
              form.cleared();
              const undo = (): void => changeSweep(before);
              app.notices.show("The space is as suggested again.", { action: { label: "Undo", run: undo } });
            }}
          >
            Suggest a space
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
            <SpaceFields {...part} />
            <SearchFields {...part} />
            <DataFields {...part} />
            <MoneyFields {...part} />
            <OptionSections {...part} />
          </div>
          <div class="run-side">
            <h2 class="visually-hidden">Count and start</h2>
            <Counted verdict={counted()} />
            <Show when={form.refusal()}>
              {(one) => <ErrorPanel error={one().error} title="The broker did not start it" />}
            </Show>
            <Show when={form.mistakes().length > 0}>
              <Mistakes mistakes={form.mistakes()} />
            </Show>
            <div class="run-actions">
              <Button kind="primary" type="submit" busy={form.starting()}>
                {form.starting() ? "Starting" : "Start the sweep"}
              </Button>
            </div>
            <p class="small muted">
              The figures of every row are those of a single backtest of its combination. Backtests that are started
              meanwhile go ahead.
            </p>
          </div>
        </form>
      </FormGate>
    </section>
  );
}

/** Says the broker's count and estimate, or why it would refuse. */
function Counted(props: { readonly verdict: Verdict<SweepAccepted> }): JSX.Element {
  const passed = createMemo((before: SweepAccepted | undefined) => {
    const now = props.verdict;
    if (now.kind === "passed") return now.answer;
    return now.kind === "asking" ? before : undefined; // the old count stays until the new one is there
  }, undefined);
  const refused = (): { readonly error: unknown } | undefined =>
    props.verdict.kind === "refused" ? props.verdict : undefined;
  return (
    <div class="panel panel-body sweep-count" role="status" aria-busy={props.verdict.kind === "asking"}>
      <Switch fallback={<p class="muted">The broker counts the combinations once the form is complete.</p>}>
        <Match when={passed()}>
          {(one) => (
            <>
              <p>
                <strong class="sweep-number" data-testid="sweep-combinations">
                  {one().exact === false ? "about " : ""}
                  {count(one().combinations)}
                </strong>{" "}
                {one().combinations === 1 ? "combination" : "combinations"}
                <Show when={one().cells !== one().combinations}>
                  <span class="muted"> of {count(one().cells)} in the space</span>
                </Show>
              </p>
              <p data-testid="sweep-estimate">
                <strong>{one().estimatedMs < 100 ? "less than 0.1 s" : seconds(one().estimatedMs)}</strong>{" "}
                <span class="muted">as estimated, on all workers</span>
              </p>
              <Show when={one().trialsBefore}>
                {(before) => (
                  <p class="small">
                    {count(before())} {before() === 1 ? "combination" : "combinations"} of this algorithm were tried on
                    these bars before. The more are tried, the better the best looks by chance.
                  </p>
                )}
              </Show>
              <p class="small muted">
                Path <code>{one().path}</code>: {one().pathReason}.
              </p>
              <For each={one().notes}>{(note) => <p class="small">Note: {note}.</p>}</For>
            </>
          )}
        </Match>
        <Match when={refused()}>
          {(one) => <ErrorPanel error={one().error} title="The broker would refuse this" mild />}
        </Match>
        <Match when={props.verdict.kind === "asking"}>
          <p class="muted">The broker counts …</p>
        </Match>
      </Switch>
    </div>
  );
}
