/** The screen of a backtest that is queued, runs or is paused. */

import type { BacktestStatus } from "@backtestr/client/page";
import { createEffect, createMemo, createSignal, type JSX, on, onCleanup, Show } from "solid-js";
import { useApp } from "../../app-context";
import { numberLabel, percentLabel } from "../../charts/axis-labels";
import { CandleChart } from "../../charts/candle-chart";
import type { ChartState } from "../../charts/chart-frame";
import { Coalesced } from "../../charts/frame";
import { SeriesChart } from "../../charts/series-chart";
import type { PlotSeries } from "../../charts/series-plot";
import { Button, LinkButton } from "../../components/button";
import { Definition } from "../../components/definition";
import { ErrorPanel } from "../../components/error-panel";
import { Progress } from "../../components/states";
import { change, count, fixed, percent, profit, sense } from "../../format/numbers";
import { moment, seconds } from "../../format/times";
import { formatRoute } from "../../routes";
import { configOf, titleOf } from "../result/result-data";
import { LiveModel } from "./live-model";
import { LiveLog, OrdersTable, PositionsTable } from "./live-tables";
import "../result/result.css";
import "./live.css";

/** Milliseconds between changes of texts: more often nobody reads them. */
const WORDS_MS = 250;
/** Milliseconds between drawings of what has come; zooming and panning draw at every frame. */
const DRAWING_MS = 50;

export interface LiveScreenProps {
  readonly id: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly status: BacktestStatus | undefined;
}

/** Shows a backtest while it runs. */
export function LiveScreen(props: LiveScreenProps): JSX.Element {
  const app = useApp();
  const config = configOf(props.config);
  const [drawn, setDrawn] = createSignal(0);
  const [words, setWords] = createSignal(0);
  let timer: ReturnType<typeof setTimeout> | undefined;
  let pause: ReturnType<typeof setTimeout> | undefined;
  const drawing = new Coalesced(() => {
    model.place();
    setDrawn((last) => last + 1);
  });
  const model = new LiveModel(app.client, props.id, config, props.status?.progressPercent ?? 0, () => {
    pause ??= setTimeout(() => {
      pause = undefined;
      drawing.request();
    }, DRAWING_MS);
    timer ??= setTimeout(() => {
      timer = undefined;
      setWords((last) => last + 1);
    }, WORDS_MS);
  });
  onCleanup(() => {
    model.stop();
    drawing.cancel();
    clearTimeout(timer);
    clearTimeout(pause);
  });
  const status = (): BacktestStatus["status"] => props.status?.status ?? "running";
  createEffect(on(status, (now) => model.noteStatus(now)));

  return (
    <div class="screen" data-testid="live-screen">
      <header class="screen-header">
        <h1>{titleOf(config)}</h1>
        <span class={`status-word ${status()}`}>{status()}</span>
        <Pace pace={config.pace} />
        <Controls id={props.id} status={status()} />
      </header>
      <State model={model} status={status()} words={words()} />
      <Charts model={model} drawn={drawn()} status={status()} />
      <div class="live-tables">
        <OrdersTable model={model} words={words()} />
        <PositionsTable model={model} words={words()} />
      </div>
      <LiveLog model={model} words={words()} />
    </div>
  );
}

function Pace(props: { readonly pace: number | undefined }): JSX.Element {
  return (
    <Show when={props.pace}>
      {(pace) => (
        <span class="muted">
          <Definition term={`${count(pace())} bars a second`}>
            The pace was set at the start. It slows the backtest so that it can be watched, changes no result, and
            cannot be changed while the backtest runs; pause and resume can.
          </Definition>
        </span>
      )}
    </Show>
  );
}

function Controls(props: { readonly id: string; readonly status: BacktestStatus["status"] }): JSX.Element {
  const app = useApp();
  const [busy, setBusy] = createSignal<string>();
  const [error, setError] = createSignal<unknown>();
  const [isSure, setIsSure] = createSignal(false);
  let timer: ReturnType<typeof setTimeout> | undefined;
  onCleanup(() => clearTimeout(timer));
  async function ask(request: "PauseBacktest" | "ResumeBacktest" | "StopBacktest"): Promise<void> {
    setBusy(request);
    setError(undefined);
    try {
      await app.client.request(request, { backtestId: props.id });
    } catch (reason) {
      setError(reason);
    }
    setBusy(undefined);
  }
  function stop(): void {
    clearTimeout(timer);
    if (isSure()) {
      setIsSure(false);
      void ask("StopBacktest");
      return;
    }
    setIsSure(true);
    timer = setTimeout(() => setIsSure(false), 5_000);
  }
  return (
    <>
      <div class="actions">
        <Show
          when={props.status === "paused"}
          fallback={
            <Button busy={busy() === "PauseBacktest"} onClick={() => void ask("PauseBacktest")}>
              Pause
            </Button>
          }
        >
          <Button kind="primary" busy={busy() === "ResumeBacktest"} onClick={() => void ask("ResumeBacktest")}>
            Resume
          </Button>
        </Show>
        <Button kind={isSure() ? "danger" : "plain"} busy={busy() === "StopBacktest"} onClick={stop}>
          {isSure() ? "Stop for good, keep the result so far" : "Stop"}
        </Button>
        <LinkButton href={formatRoute({ screen: "run", copyOf: props.id })}>Open the form …</LinkButton>
      </div>
      <Show when={error()}>{(found) => <ErrorPanel mild title="The backtest was not changed" error={found()} />}</Show>
    </>
  );
}

interface StateProps {
  readonly model: LiveModel;
  readonly status: BacktestStatus["status"];
  readonly words: number;
}

function State(props: StateProps): JSX.Element {
  const now = createMemo(() => {
    void props.words;
    return { ...props.model.progress };
  });
  const share = (): number | undefined => {
    const done = now().progressPercent;
    return done === undefined ? undefined : done / 100;
  };
  const text = (): string => {
    void props.words;
    if (props.status === "queued") return "It waits for a worker";
    const done = share() === undefined ? "" : percent(share(), 1);
    if (props.status === "paused") return `${done}, paused`;
    const left = props.model.left();
    return left === undefined ? done : `${done}, about ${seconds(left)} left`;
  };
  const total = (): number => (now().realizedPnL ?? 0) + (now().unrealizedPnL ?? 0);
  const gained = (): number | undefined => now().equityCurvePoint?.returns;
  const lost = createMemo(() => {
    void props.words;
    return props.model.lost;
  });
  const received = createMemo(() => {
    void props.words;
    return props.model.received;
  });
  return (
    <section class="panel" aria-label="State of the backtest">
      <div class="panel-body">
        <Progress label="Progress of the backtest" share={share()} text={text()} />
      </div>
      <dl class="live-top" data-testid="live-figures">
        <div>
          <dt>Bar</dt>
          <dd>{now().currentTime === undefined ? "—" : moment(now().currentTime as number)}</dd>
        </div>
        <div>
          <dt>Equity</dt>
          <dd>{fixed(now().equityCurvePoint?.equity, 2)}</dd>
        </div>
        <div>
          <dt>Return</dt>
          <dd class={sense(gained())}>{change(gained(), 2)}</dd>
        </div>
        <div>
          <dt>Drawdown</dt>
          <dd>{percent(now().equityCurvePoint?.drawdown, 2)}</dd>
        </div>
        <div>
          <dt>PnL, realised and not</dt>
          <dd class={sense(total())}>{profit(total())}</dd>
        </div>
        <div>
          <dt>Orders filled</dt>
          <dd>{count(now().ordersExecuted)}</dd>
        </div>
        <div>
          <dt>
            <Definition term="Messages">
              Messages of progress, orders, positions and, where they are published, prices that this page has received.
              The broker repairs what a connection loses; what it no longer has is counted as lost and named in the log.
            </Definition>
          </dt>
          <dd data-testid="live-messages">
            {count(received())}
            <Show when={lost() > 0}>
              <span class="loss small"> {count(lost())} lost</span>
            </Show>
          </dd>
        </div>
      </dl>
    </section>
  );
}

function Charts(props: { readonly model: LiveModel; readonly drawn: number; readonly status: string }): JSX.Element {
  const { model } = props;
  const line = (name: string, of: () => PlotSeries["values"], colour: PlotSeries["colour"]): PlotSeries => ({
    name,
    xs: () => model.places.values.subarray(0, model.places.length),
    get values() {
      return of();
    },
    colour,
  });
  const equity = [line("Equity", () => model.points.equity, "series-1")];
  const drawdown: readonly PlotSeries[] = [
    Object.defineProperties(
      line("Drawdown", () => model.points.drawdown, "loss"),
      {
        isFilled: { value: true },
      },
    ) as PlotSeries,
  ];
  const candles = createMemo((): ChartState => {
    void props.drawn;
    if (model.barsError !== undefined) {
      return { kind: "failed", error: model.barsError, retry: () => model.retryBars() };
    }
    if (model.revealed > 0) return { kind: "ready" };
    return { kind: "waiting", what: props.status === "queued" ? "a worker that begins the backtest" : "the first bar" };
  });
  const curve = createMemo((): ChartState => {
    void props.drawn;
    return model.places.length > 0 ? { kind: "ready" } : { kind: "waiting", what: "the first progress" };
  });
  const fills = createMemo(() => {
    void props.drawn;
    return model.fills();
  });
  const source = {
    times: () => model.bars.times,
    bars: () => model.revealed,
    candles: (level: number) => model.bars.candles(level),
    want: () => undefined,
  };
  return (
    <>
      <Show when={model.config.symbols.length > 1}>
        <p class="small muted">
          The prices are those of {model.symbol}; the result will show those of all {model.config.symbols.length}{" "}
          symbols.
        </p>
      </Show>
      <CandleChart
        title={`Prices of ${model.symbol}`}
        group={model.group}
        source={source}
        revision={props.drawn}
        isGrowing
        fills={fills()}
        state={candles()}
        size="middle"
        testId="chart-candles"
      />
      <SeriesChart
        title="Equity"
        definition="The equity at each progress: cash plus the value of all positions. The result has it at every bar."
        group={model.group}
        series={equity}
        revision={props.drawn}
        format={(value) => fixed(value, 2)}
        label={numberLabel}
        state={curve()}
        size="small"
        testId="chart-equity"
      />
      <SeriesChart
        title="Drawdown"
        definition="The fall of equity from its highest value so far, as a fraction of that, drawn downwards."
        group={model.group}
        series={drawdown}
        revision={props.drawn}
        format={(value) => percent(value, 2)}
        label={percentLabel}
        isFromZero
        state={curve()}
        size="small"
        testId="chart-drawdown"
      />
      <Show when={props.drawn > 0 && model.points.halved > 0}>
        <p class="small muted">The equity curve has more points than are kept: every second one is left out.</p>
      </Show>
    </>
  );
}
