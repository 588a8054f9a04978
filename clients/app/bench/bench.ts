/**
 * Measures the app in a headless chromium without a GPU: make bench-ui.
 *
 * Real broker, real `backtestr ui`, the built page. BENCH_SECONDS shortens the minute of updates.
 */

import { rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { type Client, connect } from "@backtestr/client";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { servedCopy } from "../tests/browser/support/built-page";
import { chromiumPath, FLAGS } from "../tests/browser/support/chromium";
import { csvOfBars } from "../tests/browser/support/data";
import { Stage, UiServer } from "../tests/browser/support/stage";
import { type Figure, line, load, quantile, reaches } from "./figures";
import { beginFrames, endFrames, framesOf, type Gesture, heapMegabytes } from "./frames";
import { measureSize } from "./page-size";
import { measureTunnel } from "./tunnel";

const SECONDS = Number(process.env.BENCH_SECONDS ?? 60);
const BARS = 1_000_000;
const FRAMES = 180;
/** Megabytes that the heap may grow in the minute; the bars that are kept take some of them. */
const GROWTH = 16;
/** No rate limit, which Pings in a loop would reach. */
const BROKER = "[throttle]\nreal_time_per_second = 0\n";

/** Trades at every bar, so that 20,000 bars have 20,000 fills. */
const EVERY_BAR = `import numpy as np
from backtestr_engine.authoring import Bars, Signals, algorithm


@algorithm("bench_every_bar")
def bench_every_bar(bars: Bars) -> Signals:
    even = np.arange(len(bars.close)) % 2 == 0
    return Signals.of(entries=even, exits=~even)
`;

const found: Figure[] = [];

function state(...figures: readonly Figure[]): void {
  for (const one of figures) {
    found.push(one);
    console.log(line(one));
  }
}

async function main(): Promise<void> {
  const copy = servedCopy();
  const browser = await chromium.launch({ executablePath: chromiumPath(), headless: true, args: FLAGS });
  const stage = await Stage.started(copy, { broker: BROKER });
  const client = await connect({ connectionFile: stage.broker.connectionFile, timeoutMs: 120_000 });
  console.log(`${cpus().length} cores, ${cpus()[0]?.model}; load ${load()} at the start\n`);
  try {
    const context = await letIn(browser, await stage.link());
    await firstScreen(browser, stage);
    await sizes(context, stage, copy);
    await millionBars(context, stage, client);
    await candles(context, stage, client);
    await updates(context, stage, client);
    state(...(await tunnel(context, stage, copy)));
  } finally {
    await client.close();
    await stage.stop();
    await browser.close();
    rmSync(copy, { recursive: true, force: true });
  }
  const missed = found.filter((one) => !reaches(one)).length;
  console.log(`\nload ${load()} at the end; ${missed === 0 ? "all targets are reached" : `${missed} missed`}`);
}

async function letIn(browser: Browser, link: string): Promise<BrowserContext> {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  await page.goto(link);
  await page.close();
  return context;
}

async function opened(context: BrowserContext, stage: Stage, hash: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(`${new URL(await stage.link()).origin}/${hash}`);
  await page.getByText("Connected", { exact: true }).waitFor();
  return page;
}

/** From the command to the list of series, in a browser that runs. The server is one of its own. */
async function firstScreen(browser: Browser, stage: Stage): Promise<void> {
  const took: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    const home = join(stage.broker.home, `ui-${round}`);
    const context = await browser.newContext();
    const page = await context.newPage();
    const began = performance.now();
    const server = new UiServer({
      ...stage.environment,
      BACKTESTR_RUNTIME_DIR: home,
      BACKTESTR_CONNECTION_FILE: stage.broker.connectionFile,
    });
    try {
      await page.goto(await server.link());
      await page.getByRole("row").filter({ hasText: "SYNTH" }).first().waitFor();
      took.push(performance.now() - began);
    } finally {
      await server.end();
      await context.close();
    }
  }
  const seconds = quantile(took, 0.5) / 1000;
  state({ what: "backtestr ui to first screen", value: seconds, unit: "s", target: 1.5, better: "less" });
}

async function sizes(context: BrowserContext, stage: Stage, copy: string): Promise<void> {
  const page = await opened(context, stage, "#/data");
  await page.getByRole("row").filter({ hasText: "SYNTH" }).first().waitFor();
  state(...(await measureSize(join(copy, "backtestr/ui/page"), page)));
  await page.close();
}

/** Opens a screen within the page, and returns the milliseconds until `selector` is there and was painted. */
async function painted(page: Page, hash: string, selector: string): Promise<number> {
  return page.evaluate(
    async ([to, sought]) => {
      const frame = (): Promise<unknown> => new Promise((next) => requestAnimationFrame(next));
      const began = performance.now();
      window.location.hash = to;
      while (document.querySelector(sought) === null) await frame();
      await frame();
      await frame(); // what was put there is drawn in one frame, and seen in the next
      return performance.now() - began;
    },
    [hash, selector] as const,
  );
}

const ZOOM: Omit<Gesture, "selector"> = { deltaX: 0, deltaY: -90, turnAfter: 45 };
const PAN: Omit<Gesture, "selector"> = { deltaX: 40, deltaY: 0, turnAfter: 30 };

async function gestures(page: Page, selector: string, what: string, target: number): Promise<void> {
  await page.locator(selector).first().scrollIntoViewIfNeeded();
  const zoomed = await framesOf(page, { ...ZOOM, selector }, FRAMES);
  state({ what: `${what}: zoom, p95 of a frame`, value: quantile(zoomed, 0.95), unit: "ms", target, better: "less" });
  await framesOf(page, { ...ZOOM, selector }, 20); // a part is in view, so that there is something to pan to
  const panned = await framesOf(page, { ...PAN, selector }, FRAMES);
  state({ what: `${what}: pan, p95 of a frame`, value: quantile(panned, 0.95), unit: "ms", target, better: "less" });
}

async function millionBars(context: BrowserContext, stage: Stage, client: Client): Promise<void> {
  const file = join(stage.broker.home, "million.csv");
  writeFileSync(file, csvOfBars(BARS));
  await client.importMarketData(file, { symbol: "MILLION", timeframe: "1m" });
  rmSync(file);
  const run = await client.backtest({ algorithm: "sma_cross", symbol: "MILLION", timeframe: "1m" });
  await run.wait();
  const page = await opened(context, stage, "#/runs");
  const took = await painted(page, `#/runs/${run.id}`, "[data-testid='chart-equity'] canvas");
  const first = { what: "1,000,000 bars: first paint of the result", unit: "s", better: "less" } as const;
  state({ ...first, value: took / 1000, target: 1 });
  await page.waitForFunction(() => document.querySelector(".waiting") === null);
  await gestures(page, "[data-testid='chart-equity'] .u-over", "1,000,000 bars", 50);
  await page.close();
}

async function candles(context: BrowserContext, stage: Stage, client: Client): Promise<void> {
  await client.registerAlgorithm(EVERY_BAR);
  const run = await client.backtest({ algorithm: "bench_every_bar", symbol: "SYNTH", timeframe: "1m" });
  await run.wait();
  const page = await opened(context, stage, `#/runs/${run.id}?view=trades`);
  await page.getByTestId("chart-candles").locator("canvas").first().waitFor();
  await page.waitForFunction(() => document.querySelector(".waiting") === null);
  await gestures(page, "[data-testid='chart-candles'] .chart-area", "20,000 candles, 20,000 fills", 33);
  await page.close();
}

/** A backtest that simulates and publishes a thousand bars a second, before the screen that shows it. */
async function updates(context: BrowserContext, stage: Stage, client: Client): Promise<void> {
  const run = await client.backtest({
    algorithm: "sma_cross",
    symbol: "MILLION",
    timeframe: "1m",
    options: { pace: 1000, streams: { prices: true, columns: true } },
  });
  const page = await opened(context, stage, `#/runs/${run.id}`);
  await page.getByTestId("live-figures").waitFor();
  await page.getByTestId("chart-candles").locator("canvas").first().waitFor();
  const shown = async (): Promise<number> =>
    Number((await page.getByTestId("live-messages").innerText()).replace(/\D/g, ""));
  const seconds = Math.max(10, SECONDS);
  await page.waitForTimeout(5_000); // the screen has caught up with what was there before it
  const [heap, before, began] = [await heapMegabytes(page), await shown(), performance.now()];
  await beginFrames(page);
  await page.waitForTimeout(1000 * seconds);
  const frames = await endFrames(page);
  const [after, passed] = [await shown(), (performance.now() - began) / 1000];
  const grown = (await heapMegabytes(page)) - heap;
  const lost = /([\d.]+[kM]?) lost/.exec(await page.locator(".status-end").innerText())?.[1] ?? "?";
  await run.stop();
  await page.close();
  const what = `${seconds} s at 1,000 bars a second`;
  state(
    { what: `${what}: updates a second`, value: (after - before) / passed, unit: "/s", target: 1000, better: "more" },
    { what: `${what}: messages dropped`, value: Number(lost), unit: "", target: 0, better: "less" },
    { what: `${what}: p95 of a frame`, value: quantile(frames, 0.95), unit: "ms", target: 33, better: "less" },
    { what: `${what}: growth of the heap`, value: grown, unit: "MB", target: GROWTH, better: "less" },
  );
}

async function tunnel(context: BrowserContext, stage: Stage, copy: string): Promise<readonly Figure[]> {
  const page = await opened(context, stage, "#/topics");
  try {
    return await measureTunnel(page, stage, copy);
  } finally {
    await page.close();
  }
}

await main();
