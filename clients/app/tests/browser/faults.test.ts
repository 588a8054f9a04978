/** Everything behind the page goes away and comes back: a worker, the broker, the server, the cookie. One stage for all. */

import { type Client, connect } from "@backtestr/client";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject } from "vitest";
import { until } from "../../../typescript/tests/support/broker";
import { settled, test } from "./support/app";
import { expectAccessible, expectNothingLost, picture } from "./support/looks";
import { Stage } from "./support/stage";

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.started(inject("servedCopy"), { withBroker: false, uploadLimit: 1 });
});

afterAll(() => stage.stop());

async function clientOf(one: Stage): Promise<Client> {
  return connect({ connectionFile: one.broker.connectionFile, timeoutMs: 30_000 });
}

async function goTo(page: Page, hash: string): Promise<void> {
  await page.evaluate((to) => {
    window.location.hash = to;
  }, hash);
}

test("without a broker every screen says so, none spins for ever, and the page starts one", async ({
  open,
  foresee,
}) => {
  foresee(/WebSocket/);
  const page = await open("#/data", { stage });
  const bar = page.locator(".status-bar");
  await bar.getByText("No broker", { exact: true }).waitFor();
  for (const hash of ["#/run", "#/runs", "#/compare", "#/algorithms", "#/state", "#/topics", "#/data"]) {
    await goTo(page, hash);
    await page.locator(".screen h1, .screen h2").first().waitFor();
    await page.getByRole("button", { name: "Start a broker" }).first().waitFor();
  }
  await picture(page, "no-broker-light");
  await expectAccessible(page, "no broker");
  await page.setViewportSize({ width: 720, height: 450 });
  await expectNothingLost(page, "no broker");
  await page.getByRole("button", { name: "Start a broker" }).first().click();
  await settled(page);
  await page.getByRole("row").filter({ hasText: "SYNTH" }).first().waitFor();
});

test("a catalogue, a list of results and a form without anything say how to begin", async ({ open }) => {
  const page = await open("#/data", { stage });
  const client = await clientOf(stage);
  try {
    for (const { symbol, timeframe } of await client.listMarketData()) await client.deleteMarketData(symbol, timeframe);
    await page.reload();
    await page.getByText("There are no series yet").waitFor();
    await picture(page, "empty-data");
    await expectAccessible(page, "an empty catalogue");
    await goTo(page, "#/run");
    await page.getByText("There is nothing to run on yet").waitFor();
    await goTo(page, "#/runs");
    await page.locator(".empty-state h2").waitFor();
    await picture(page, "empty-runs");
    await goTo(page, "#/data");
    await page.getByRole("button", { name: "Import a made-up sample" }).click();
    await page.getByText(/is stored/).waitFor();
  } finally {
    await client.close();
  }
});

test("a file above the limit is refused before it is sent", async ({ open, foresee }) => {
  foresee(/413/);
  const page = await open("#/data", { stage });
  await settled(page);
  await page
    .getByLabel("Files to import")
    .setInputFiles({ name: "LARGE.csv", mimeType: "text/csv", buffer: Buffer.alloc(1_100_000, "1,2\n") });
  await page.getByRole("button", { name: "Import", exact: true }).click();
  await page
    .getByRole("alert")
    .getByText(/1\.0 MB|1,048,576|limit|large/i)
    .first()
    .waitFor();
});

test("a killed worker is replaced, and the page has every fill of its backtest once", async ({ open }) => {
  const client = await clientOf(stage);
  try {
    const [series] = await client.listMarketData();
    const symbol = series?.symbol ?? "";
    const timeframe = series?.timeframe ?? "";
    const run = await client.backtest({
      algorithm: "sma_cross",
      symbol,
      timeframe,
      parameters: { fast: 3, slow: 9 },
      options: { pace: 400 },
    });
    const page = await open(`#/runs/${run.id}`, { stage });
    await page.getByTestId("live-orders").getByRole("row").nth(3).waitFor();
    const workers = (await client.systemStatus()).workers;
    for (const one of workers) process.kill(one.pid, "SIGKILL");
    await until(
      async () => {
        const now = (await client.systemStatus()).workers;
        return now.some((one) => one.state === "busy" && workers.every((before) => before.pid !== one.pid));
      },
      "another worker that goes on with the backtest",
      60_000,
    );
    await page.getByTestId("result-screen").waitFor({ timeout: 60_000 });
    const { metrics } = await client.results(run.id);
    expect(Number((await page.getByTestId("metric-totalTrades").locator("dd").innerText()).replaceAll(",", ""))).toBe(
      metrics?.totalTrades,
    );
  } finally {
    await client.close();
  }
});

test("a server that ends, a cookie that it no longer knows, and a new link", async ({ open, foresee }) => {
  foresee(/WebSocket|ERR_CONNECTION|Failed to fetch|401|request: /);
  const page = await open("#/runs", { stage });
  await settled(page);
  const { port } = new URL(page.url());
  await stage.endServer("SIGKILL");
  const bar = page.locator(".status-bar");
  await bar.getByText("App server away", { exact: true }).waitFor({ timeout: 30_000 });
  const link = await stage.restartServer(Number(port));
  await bar.getByText("Link expired", { exact: true }).waitFor({ timeout: 30_000 });
  await bar
    .locator(".status-start")
    .getByText(/run .*backtestr ui.* again/)
    .waitFor();
  await picture(page, "link-expired");
  await page.goto(link);
  await settled(page);
  await page.goto(link);
  await settled(page); // whoever is in already opens an old link without harm
});
