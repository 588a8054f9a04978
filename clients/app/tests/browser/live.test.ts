/** The screen of a running backtest: it follows, controls, and outlives its page and its broker. */

import { expect, inject } from "vitest";
import { settled, test } from "./support/app";
import { Stage } from "./support/stage";

/** Backtests with a pace follow a clock of their own, and take longer on a busy machine than other tests. */
const LONG_MS = 240_000;

const SLOW = {
  algorithm: "sma_cross",
  symbol: "SYNTH",
  timeframe: "1m",
  start: "2024-01-01",
  end: "2024-03-01",
  parameters: { fast: 5, slow: 15 },
  options: { pace: 400 },
} as const;

function percentOf(text: string): number {
  return Number(/([\d.]+) %/.exec(text)?.[1] ?? Number.NaN);
}

test("it is followed, paused, resumed and stopped, and then is a result", { timeout: LONG_MS }, async ({
  open,
  client,
}) => {
  const run = await client.backtest({ ...SLOW, options: { pace: 400, streams: { prices: true } } });
  const page = await open(`#/runs/${run.id}`);
  const progress = page.locator(".progress");
  await expect.poll(async () => percentOf(await progress.innerText())).toBeGreaterThan(0);
  await page.getByTestId("live-orders").getByRole("row").nth(3).waitFor();
  await page.getByTestId("live-positions").getByRole("row").nth(2).waitFor();
  await page
    .getByTestId("live-log")
    .getByText(/^(Bought|Sold) /)
    .first()
    .waitFor();
  await page.getByTestId("chart-candles").locator("canvas").first().waitFor();
  await page.getByTestId("chart-equity").locator("canvas").waitFor();
  await expect.poll(() => progress.innerText()).toMatch(/about .* left/);
  await page.getByText("400 bars a second").first().waitFor();

  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator(".status-word.paused").waitFor();
  await expect.poll(() => progress.innerText()).toMatch(/paused/);
  expect((await run.status()).status).toBe("paused");
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator(".status-word.running").waitFor();
  await page.getByTestId("live-log").getByText("Resumed").waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "Stop for good, keep the result so far" }).click();
  await page.getByTestId("result-screen").waitFor();
  await page.getByTestId("verdicts").getByText("The backtest was stopped early").waitFor();
  await page.getByTestId("chart-equity").locator("canvas").waitFor();
});

test("one that ends while it is watched becomes a result by itself", { timeout: LONG_MS }, async ({ open, client }) => {
  const run = await client.backtest({ ...SLOW, end: "2024-01-02", options: { pace: 200 } });
  const page = await open(`#/runs/${run.id}`);
  await page.getByTestId("live-screen").waitFor();
  await run.wait();
  await page.getByTestId("result-screen").waitFor();
  expect(await page.getByTestId("metric-totalTrades").locator("dd").innerText()).toBe(
    String((await client.metrics(run.id))?.totalTrades),
  );
});

test("a page that is opened in the middle has all of the past", { timeout: LONG_MS }, async ({ open, client }) => {
  const run = await client.backtest(SLOW);
  const first = await open(`#/runs/${run.id}`);
  const filled = (page: typeof first): Promise<number> =>
    page
      .getByTestId("live-figures")
      .locator("div", { hasText: "Orders filled" })
      .locator("dd")
      .innerText()
      .then((text) => Number(text.replaceAll(",", "")));
  await expect.poll(() => filled(first)).toBeGreaterThan(60);
  await first.close();
  const second = await open(`#/runs/${run.id}`);
  await expect.poll(() => filled(second)).toBeGreaterThan(60);
  await run.pause();
  await second.locator(".status-word.paused").waitFor();
  const { ordersExecuted } = await last(client, run.id);
  await expect.poll(() => filled(second)).toBe(ordersExecuted);
  await expect
    .poll(async () => Number(await second.getByTestId("live-orders").locator(".panel-header .muted").innerText()))
    .toBeGreaterThanOrEqual(ordersExecuted);
  await run.stop();
});

async function last(
  client: { run(id: string): Promise<{ progress(): AsyncIterable<{ ordersExecuted: number }> }> },
  id: string,
) {
  const run = await client.run(id);
  let found = { ordersExecuted: 0 };
  const stream = run.progress()[Symbol.asyncIterator]();
  // The backtest is paused: what is retained comes at once, and then nothing.
  for (;;) {
    const next = await Promise.race([stream.next(), new Promise<undefined>((resolve) => setTimeout(resolve, 1_500))]);
    if (next === undefined || next.done === true) return found;
    found = next.value;
  }
}

test("a killed broker is found again, and the backtest goes on to its result", { timeout: LONG_MS }, async ({
  open,
  foresee,
}) => {
  foresee(/WebSocket|ERR_|50[0-9]|tunnel/i);
  const stage = await Stage.started(inject("servedCopy"));
  const { connect } = await import("@backtestr/client");
  const client = await connect({ connectionFile: stage.broker.connectionFile, timeoutMs: 30_000 });
  try {
    const run = await client.backtest({ ...SLOW, end: "2024-02-01", options: { pace: 1_000 }, watch: [] });
    const page = await open(`#/runs/${run.id}`, { stage });
    await page.getByTestId("live-orders").getByRole("row").nth(3).waitFor({ timeout: 60_000 });
    await stage.broker.kill();
    await page.getByText("Connected", { exact: true }).waitFor({ state: "hidden" });
    await stage.broker.start();
    await settled(page);
    await page.getByTestId("result-screen").waitFor({ timeout: 120_000 });
    const shown = await page.getByTestId("metric-totalTrades").locator("dd").innerText();
    const after = await client.results(run.id);
    expect(Number(shown.replaceAll(",", ""))).toBe(after.metrics?.totalTrades);
  } finally {
    await client.close();
    await stage.stop();
  }
});
