import { Switch as Choose, createMemo, createResource, createSignal, For, type JSX, Match, Show } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { Select, TextField } from "../../components/field";
import { Progress, Waiting } from "../../components/states";
import { bytes, count } from "../../format/numbers";
import { range } from "../../format/times";
import { chooseSeries } from "../run/run-draft";
import { toldByName } from "./file-names";
import type { ImportJob } from "./import-jobs";
import { askedFor, formErrors, type ImportField, OPTIONS, type OptionChoice } from "./import-options";
import { refusalOf, severalSymbolsOf } from "./refused-rows";
import { RefusedRows } from "./refused-rows-view";

/** Characters of the beginning of a file that are shown before its import. */
const PREVIEW = 4_096;

/** One import, from the chosen file to the series or the refusal. */
export function ImportCard(props: { readonly job: ImportJob }): JSX.Element {
  const { job } = props;
  const errors = createMemo(() => formErrors(job.form()));
  const [tried, setTried] = createSignal(false);
  const refusal = (): unknown => {
    const stage = job.stage();
    return stage.kind === "refused" ? stage.error : undefined;
  };
  const busy = (): boolean => ["uploading", "importing"].includes(job.stage().kind);
  function start(): void {
    setTried(true);
    if (Object.keys(errors()).length === 0) void job.start();
  }
  return (
    <section class="panel import-card" aria-label={`Import of ${job.file.name}`}>
      <header class="panel-header">
        <h2 class="import-name">{job.file.name}</h2>
        <span class="muted small">{bytes(job.file.size)}</span>
        <div class="actions">
          <Button kind="quiet" aria-label={`Dismiss ${job.file.name}`} onClick={() => job.dismiss()}>
            {busy() ? "Cancel" : "✕"}
          </Button>
        </div>
      </header>
      <div class="panel-body import-body">
        <Choose>
          <Match when={job.stage().kind === "done"}>
            <Done job={job} />
          </Match>
          <Match when={job.stage().kind !== "done"}>
            <Show when={refusal()}>{(error) => <Refused job={job} error={error()} retry={start} />}</Show>
            <form
              class="import-form"
              onSubmit={(event) => {
                event.preventDefault();
                start();
              }}
            >
              <div class="import-fields">
                <TextField
                  label="Symbol"
                  value={job.form().symbol}
                  onInput={(symbol) => job.setForm({ symbol })}
                  error={tried() ? errors().symbol : undefined}
                  disabled={busy()}
                />
                <TextField
                  label="Timeframe"
                  value={job.form().timeframe}
                  placeholder="as the file shows"
                  hint={nameSays(job.file.name)}
                  onInput={(timeframe) => job.setForm({ timeframe })}
                  error={errors().timeframe}
                  disabled={busy()}
                />
                <For each={OPTIONS.filter((one) => askedFor(refusal()).includes(one.field))}>
                  {(option) => <Option job={job} option={option} disabled={busy()} asked />}
                </For>
              </div>
              <details>
                <summary>More options</summary>
                <div class="import-fields">
                  <For each={OPTIONS.filter((one) => !askedFor(refusal()).includes(one.field))}>
                    {(option) => <Option job={job} option={option} disabled={busy()} />}
                  </For>
                </div>
              </details>
              <Show when={job.stage().kind === "chosen"}>
                <FirstLines file={job.file} />
              </Show>
              <Underway job={job} />
              <div class="import-actions">
                <Button kind="primary" type="submit" busy={busy()}>
                  {refusal() === undefined ? "Import" : "Import again"}
                </Button>
              </div>
            </form>
          </Match>
        </Choose>
      </div>
    </section>
  );
}

function Option(props: {
  readonly job: ImportJob;
  readonly option: OptionChoice;
  readonly disabled: boolean;
  readonly asked?: boolean;
}): JSX.Element {
  const { field, label, hint, choices } = props.option;
  const common = {
    label,
    hint,
    get value() {
      return props.job.form()[field];
    },
    get disabled() {
      return props.disabled;
    },
  };
  const change = (value: string): void => props.job.setForm({ [field]: value } as Partial<Record<ImportField, string>>);
  return (
    <div classList={{ "import-asked": props.asked === true }}>
      {choices === undefined ? (
        <TextField {...common} onInput={change} />
      ) : (
        <Select {...common} onChange={change} choices={choices.map(([value, text]) => ({ value, label: text }))} />
      )}
    </div>
  );
}

function Underway(props: { readonly job: ImportJob }): JSX.Element {
  const uploading = () => {
    const stage = props.job.stage();
    return stage.kind === "uploading" ? stage : undefined;
  };
  const importing = () => {
    const stage = props.job.stage();
    return stage.kind === "importing" ? stage : undefined;
  };
  return (
    <>
      <Show when={uploading()}>
        {(stage) => (
          <Progress
            label="Upload"
            share={stage().share}
            text={`${bytes(stage().share * props.job.file.size)} of ${bytes(props.job.file.size)} uploaded`}
          />
        )}
      </Show>
      <Show when={importing()}>{(stage) => <Waiting what="the broker to read the file" since={stage().since} />}</Show>
    </>
  );
}

function Refused(props: { readonly job: ImportJob; readonly error: unknown; retry(): void }): JSX.Element {
  const found = (): ReturnType<typeof refusalOf> => refusalOf(props.error);
  const kept = (): { kept: number; rows: number } | undefined => {
    const counts = found()?.kept;
    return counts !== undefined && counts.kept > 0 ? counts : undefined;
  };
  const remedies = () => {
    const several = severalSymbolsOf(props.error);
    if (several !== undefined) {
      return [
        {
          label: `Make a series of each of the ${count(several.count)} symbols in ${several.column}`,
          run: () => {
            props.job.setForm({ symbolColumn: several.column, symbol: "" });
            props.retry();
          },
        },
      ];
    }
    const counts = kept();
    if (counts === undefined) return [];
    const lost = counts.rows - counts.kept;
    return [
      {
        label: `Leave ${count(lost)} of ${count(counts.rows)} rows out, and import the others`,
        run: () => {
          props.job.setForm({ repair: "drop" });
          props.retry();
        },
      },
    ];
  };
  return (
    <ErrorPanel error={props.error} title="The broker refused the file; nothing was stored" actions={remedies()}>
      <Show when={found()}>{(refusal) => <RefusedRows file={props.job.file} refusal={refusal()} />}</Show>
    </ErrorPanel>
  );
}

function Done(props: { readonly job: ImportJob }): JSX.Element {
  const { drafts, go } = useApp();
  const imported = () => {
    const stage = props.job.stage();
    return stage.kind === "done" ? stage.imported : undefined;
  };
  return (
    <Show when={imported()}>
      {(answer) => (
        <>
          <p>
            <strong>
              {answer().symbol} {answer().timeframe}
            </strong>{" "}
            is stored: {count(answer().bars)} {answer().timeframe === "tick" ? "ticks" : "bars"},{" "}
            {range(answer().startTime, answer().endTime)}
            <Show when={(answer().series?.length ?? 0) > 1}>
              , with {count((answer().series?.length ?? 0) - 1)} others
            </Show>
            .
          </p>
          <Show when={answer().warnings.length > 0}>
            <ul class="error-advice small">
              <For each={answer().warnings}>{(warning) => <li>{warning}</li>}</For>
            </ul>
          </Show>
          <div class="import-actions">
            <Button
              kind="primary"
              onClick={() => {
                go({ screen: "data", symbol: answer().symbol, timeframe: answer().timeframe });
                props.job.dismiss();
              }}
            >
              Look at it
            </Button>
            <Button
              onClick={() => {
                chooseSeries(drafts, answer());
                go({ screen: "run" });
                props.job.dismiss();
              }}
            >
              Backtest it
            </Button>
          </div>
        </>
      )}
    </Show>
  );
}

function FirstLines(props: { readonly file: File }): JSX.Element {
  const [lines] = createResource(
    () => props.file,
    async (file) => {
      if (/\.(parquet|arrow|feather|zip|gz)$/i.test(file.name)) return [];
      const text = await file.slice(0, PREVIEW).text();
      return text.includes("\0") ? [] : text.split(/\r?\n/).slice(0, 5);
    },
  );
  return (
    <Show when={(lines()?.length ?? 0) > 0}>
      <figure>
        <figcaption class="small muted">The first lines</figcaption>
        <pre class="file-lines" tabindex={0}>
          {lines()?.join("\n")}
        </pre>
      </figure>
    </Show>
  );
}

function nameSays(name: string): string | undefined {
  const { timeframe } = toldByName(name);
  return timeframe === "" ? undefined : `The name says ${timeframe}; the broker goes by the content.`;
}
