import type { SeriesInfo } from "@backtestr/client/page";
import {
  createMemo,
  createSignal,
  For,
  type JSX,
  lazy,
  Match,
  onCleanup,
  onMount,
  Show,
  Suspense,
  Switch,
} from "solid-js";
import { useApp } from "../../app-context";
import { Sparkline } from "../../charts/sparkline";
import { Button } from "../../components/button";
import { ErrorPanel, OldNote } from "../../components/error-panel";
import { TextField } from "../../components/field";
import { EmptyState, Waiting } from "../../components/states";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { count } from "../../format/numbers";
import { day, range, timeframeMs } from "../../format/times";
import { WaitingForBroker } from "../../shell/start-broker";
import { failedOf, staleOf, waitingOf } from "../../stores/loadable";
import { importJobs } from "./import-jobs";
import { formErrors } from "./import-options";
import { createPreviews, type Preview, seriesName } from "./previews";
import { sampleFile } from "./sample";
import "./data-screen.css";

// These come when a file or a series is chosen.
const ImportCard = lazy(async () => ({ default: (await import("./import-card")).ImportCard }));
const SeriesPanel = lazy(async () => ({ default: (await import("./series-panel")).SeriesPanel }));

/** The catalogue: imports, series, and what one of them has. */
export function DataScreen(props: {
  readonly symbol?: string | undefined;
  readonly timeframe?: string | undefined;
}): JSX.Element {
  const app = useApp();
  const imports = importJobs(app);
  onMount(() => app.reread(app.catalogue));
  const [filter, setFilter] = createSignal("");
  const [dragging, setDragging] = createSignal(false);
  let picker: HTMLInputElement | undefined;

  const series = createMemo((): readonly SeriesInfo[] => {
    const state = app.catalogue.state();
    const all = state.state === "there" ? state.value : [];
    return all.filter((one) => !app.deletions.pending().has(seriesName(one)));
  });
  const previews = createPreviews(app.client, series);
  onCleanup(() => previews.end());
  const chosen = createMemo(() => {
    const named = series().find((one) => one.symbol === props.symbol && one.timeframe === props.timeframe);
    return named ?? series().find((one) => one.symbol === props.symbol);
  });
  function pick(files: FileList | null | undefined): void {
    if (files && files.length > 0) imports.add(files);
  }
  const chosenJobs = createMemo(() => imports.jobs().filter((one) => one.stage().kind === "chosen"));
  async function importAll(): Promise<void> {
    // One after the other, as they are listed; one whose form has a mistake waits for its owner.
    for (const job of chosenJobs()) {
      if (Object.keys(formErrors(job.form())).length === 0) await job.start();
    }
  }
  function addSample(): void {
    imports.add([sampleFile()]);
    void imports.jobs()[0]?.start();
  }

  return (
    <section
      class="screen data-screen"
      classList={{ dragging: dragging() }}
      aria-label="Data"
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        setDragging(true);
      }}
      onDragLeave={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setDragging(false);
      }}
      onDrop={(event) => {
        event.preventDefault();
        setDragging(false);
        pick(event.dataTransfer?.files);
      }}
    >
      <header class="screen-header">
        <h1>Data</h1>
        <span class="muted">{totals(series())}</span>
        <div class="actions">
          <Show when={series().length > 0}>
            <TextField
              label="Filter series"
              hideLabel
              type="search"
              placeholder="Filter"
              value={filter()}
              onInput={setFilter}
            />
          </Show>
          <Button kind="primary" onClick={() => picker?.click()}>
            Import a file
          </Button>
          <input
            ref={picker}
            type="file"
            multiple
            hidden
            aria-label="Files to import"
            onChange={(event) => {
              pick(event.currentTarget.files);
              event.currentTarget.value = "";
            }}
          />
        </div>
      </header>
      <Show when={dragging()}>
        <div class="drop-hint">Drop files of bars or ticks: CSV and the exports it comes in, Parquet, Arrow.</div>
      </Show>
      <Show when={chosenJobs().length > 1}>
        <div>
          <Button kind="primary" onClick={() => void importAll()}>
            Import all {count(chosenJobs().length)} files
          </Button>
        </div>
      </Show>
      <Suspense fallback={<Waiting what="the code of imports" />}>
        <For each={imports.jobs()}>{(job) => <ImportCard job={job} />}</For>
      </Suspense>
      <OldNote error={staleOf(app.catalogue.state())} />
      <Switch>
        <Match when={waitingOf(app.catalogue.state())}>
          {(state) => <WaitingForBroker what={state().what} since={state().since} />}
        </Match>
        <Match when={failedOf(app.catalogue.state())}>
          {(state) => (
            <ErrorPanel
              error={state().error}
              title="The list of series could not be read"
              actions={[{ label: "Try again", run: () => void app.catalogue.refresh() }]}
            />
          )}
        </Match>
        <Match when={series().length === 0}>
          <EmptyState
            title="There are no series yet"
            actions={
              <>
                <Button kind="primary" onClick={() => picker?.click()}>
                  Import a file
                </Button>
                <Button onClick={addSample}>Import a made-up sample</Button>
              </>
            }
          >
            <p>
              Drop a file of bars or ticks anywhere here: CSV as pandas, Yahoo, MetaTrader, HistData, Dukascopy, Binance
              and others write it, Parquet or Arrow. The broker recognises the format, checks every row, and refuses a
              faulty file with the line and column.
            </p>
            <p>In a terminal the same is</p>
            <pre>backtestr import FILE --symbol NAME</pre>
          </EmptyState>
        </Match>
        <Match when={true}>
          <div class="data-columns">
            <div class="panel catalogue">
              <Catalogue
                series={series()}
                filter={filter()}
                chosen={chosen()}
                previewOf={(one) => previews.of(one)()}
              />
            </div>
            <Show
              when={chosen()}
              keyed
              fallback={
                <div class="panel panel-body muted">
                  Choose a series to see its prices and gaps, to resample, export or delete it.
                </div>
              }
            >
              {(one) => (
                <Suspense fallback={<Waiting what="the code of this part" />}>
                  <SeriesPanel series={one} all={series()} preview={previews.of(one)()} />
                </Suspense>
              )}
            </Show>
          </div>
        </Match>
      </Switch>
    </section>
  );
}

function Catalogue(props: {
  readonly series: readonly SeriesInfo[];
  readonly filter: string;
  readonly chosen: SeriesInfo | undefined;
  previewOf(series: SeriesInfo): Preview;
}): JSX.Element {
  const { go } = useApp();
  const at = (row: number): SeriesInfo => props.series[row] as SeriesInfo;
  const shown = createMemo(() => {
    const words = props.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = props.series.flatMap((one, row) => {
      const text = `${one.symbol} ${one.timeframe}`.toLowerCase();
      return words.every((word) => text.includes(word)) ? [row] : [];
    });
    return Uint32Array.from(rows);
  });
  const gaps = (row: number): string => {
    const preview = props.previewOf(at(row));
    if (preview.state === "waiting") return "…";
    return preview.state === "failed" ? "—" : count(preview.facts.gaps);
  };
  const columns: readonly Column[] = [
    {
      id: "symbol",
      title: "Symbol",
      width: "minmax(7rem, 2fr)",
      text: (row) => at(row)?.symbol ?? "",
      render: (row) => <strong>{at(row)?.symbol}</strong>,
      value: (row) => at(row)?.symbol,
    },
    {
      id: "timeframe",
      title: "Timeframe",
      width: "5.5rem",
      text: (row) => at(row)?.timeframe ?? "",
      value: (row) => timeframeMs(at(row)?.timeframe ?? ""),
    },
    {
      id: "from",
      title: "From",
      width: "6.25rem",
      text: (row) => day(at(row)?.startTime ?? Number.NaN),
      value: (row) => at(row)?.startTime,
    },
    {
      id: "to",
      title: "To",
      width: "6.25rem",
      text: (row) => day(at(row)?.endTime ?? Number.NaN),
      value: (row) => at(row)?.endTime,
    },
    {
      id: "bars",
      title: "Bars",
      width: "5.75rem",
      align: "end",
      text: (row) => count(at(row)?.bars),
      value: (row) => at(row)?.bars,
    },
    {
      id: "gaps",
      title: "Gaps",
      definition: "Ranges of time without bars; weekends and holidays count.",
      width: "4.5rem",
      align: "end",
      text: gaps,
    },
    {
      id: "course",
      title: "Course",
      width: "8.75rem",
      text: (row) => range(at(row)?.startTime ?? 0, at(row)?.endTime ?? 0),
      render: (row) => <Course series={at(row)} preview={props.previewOf(at(row))} />,
    },
  ];
  return (
    <Show when={shown().length > 0} fallback={<p class="panel-body muted">No series has these words.</p>}>
      <VirtualTable
        label="Series"
        rows={props.series.length}
        shown={shown()}
        columns={columns}
        revision={props.series}
        initialSort={{ column: "symbol", descending: false }}
        selected={props.chosen === undefined ? undefined : props.series.indexOf(props.chosen)}
        onSelect={(row) => go({ screen: "data", symbol: at(row).symbol, timeframe: at(row).timeframe })}
        visibleRows={24}
      />
    </Show>
  );
}

function Course(props: { readonly series: SeriesInfo | undefined; readonly preview: Preview }): JSX.Element {
  return (
    <Show when={props.preview.state === "there" ? props.preview : undefined}>
      {(preview) => (
        <Sparkline
          values={preview().closes}
          width={108}
          height={22}
          label={`Closes of ${props.series?.symbol} ${props.series?.timeframe}`}
        />
      )}
    </Show>
  );
}

function totals(series: readonly SeriesInfo[]): string {
  if (series.length === 0) return "";
  const bars = series.reduce((sum, one) => sum + one.bars, 0);
  return `${count(series.length)} series, ${count(bars)} bars and ticks`;
}
