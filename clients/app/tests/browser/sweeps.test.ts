/** The screens of sweeps: a form with its count, a map that fills, rows that open as backtests, pages that come back. */

import type { Client } from "@backtestr/client";
import type { Page } from "playwright-core";
import { expect } from "vitest";
import { drawn, settled, test } from "./support/app";
import { expectAccessible, expectNothingLost, picture } from "./support/looks";

const CONFIG = {
  algorithmId: "sma_cross",
  symbol: "SYNTH",
  timeframe: "15m",
  initialCapital: 100_000,
  commission: 0.0005,
  slippage: 0,
  parameters: {},
  options: {},
};

/** Opens the form with the space that it suggests for `sma_cross`. */
async function freshForm(open: (hash: string) => Promise<Page>): Promise<Page> {
  const page = await open("#/sweep");
  await settled(page);
  await page.getByLabel("Algorithm", { exact: true }).selectOption("sma_cross");
  await page.getByLabel("Symbol", { exact: true }).selectOption("SYNTH");
  await page.getByLabel("Timeframe").fill("15m");
  await page.getByRole("button", { name: "Suggest a space" }).click();
  await page.getByText("Draft kept by the broker").waitFor();
  return page;
}

async function statusOf(page: Page, word: string): Promise<void> {
  await page.getByTestId("sweep-status").getByText(word, { exact: true }).waitFor();
}

const idOf = (page: Page): string => new URL(page.url()).hash.replace("#/sweeps/", "");

/** Starts a sweep that takes some ten seconds, in blocks of some hundred milliseconds. */
async function slowSweep(client: Client, sweepId: string): Promise<void> {
  const config = { ...CONFIG, algorithmId: "rsi_reversion", timeframe: "1m" };
  const space = { timeperiod: { low: 2, high: 81, step: 1 }, oversold: { low: 10, high: 45, step: 1 } };
  await client.request("StartSweep", { sweepId, config, space, blockSize: 8 });
}

test("a newcomer makes a sweep by mouse, sees count and time, and opens the best row as a backtest with its figure", async ({
  open,
  client,
}) => {
  const page = await freshForm(open);
  await page.getByTestId("sweep-combinations").getByText("77", { exact: true }).waitFor();
  await page.locator("[name='high-fast']").fill("24");
  await page.getByTestId("sweep-combinations").getByText("93", { exact: true }).waitFor();
  expect(await page.getByTestId("sweep-estimate").textContent()).toMatch(/ s as estimated/);
  await page.getByRole("button", { name: "Start the sweep" }).click();
  await statusOf(page, "completed");
  await page.getByTestId("sweep-map-readout").getByText("93 cells").waitFor();
  expect(await page.getByTestId("sweep-figures").textContent()).toContain("93 of 93");
  const { best } = await client.request("GetSweepStatus", { sweepId: idOf(page) });
  await page.getByRole("grid", { name: "Rows of the sweep" }).getByRole("row").nth(1).click();
  const { fast, slow } = best!.parameters as { fast: number; slow: number };
  await page.getByTestId("sweep-chosen").getByText(`fast ${fast}, slow ${slow}: Sharpe ratio`).waitFor();
  await page.getByTestId("sweep-chosen").getByRole("button", { name: "Open as a backtest" }).click();
  await page.waitForURL(/#\/runs\//);
  const run = await client.run(new URL(page.url()).hash.replace("#/runs/", ""));
  await run.wait();
  const { metrics, config } = await client.results(run.id);
  expect(config.parameters).toMatchObject({ fast, slow });
  expect(metrics?.sharpeRatio).toBe(best!.value);
  await page.goBack();
  await page.getByTestId("sweep-best").getByRole("button", { name: "Open as a backtest" }).click();
  await page.waitForURL(`**/#/runs/${run.id}`); // the same row is the same backtest
});

test("a sweep is made, read and opened by the keyboard alone", async ({ open }) => {
  const page = await freshForm(open);
  await page.locator("[name='kind-fast']").focus();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Control+a");
  await page.keyboard.type("12");
  await page.getByTestId("sweep-combinations").getByText("46", { exact: true }).waitFor();
  await page.keyboard.press("Enter");
  await statusOf(page, "completed");
  const map = page.getByRole("application", { name: "Sharpe ratio by two parameters" });
  const readout = page.getByTestId("sweep-map-readout");
  await map.focus();
  await page.keyboard.press("Home");
  await readout.getByText(/^fast 12, slow 60: Sharpe ratio/).waitFor();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  await readout.getByText(/^fast 14, slow 55: Sharpe ratio/).waitFor();
  const lines = page.getByRole("application", { name: "All parameters" });
  await lines.focus();
  await page.keyboard.press("ArrowDown"); // the upper end of fast
  await page
    .getByTestId("sweep-parallel-chosen")
    .getByText(/^38 of 46 rows/)
    .waitFor();
  await page.getByText("fast <= 18", { exact: true }).waitFor(); // the table's filter
  await page.keyboard.press("Escape");
  await page
    .getByTestId("sweep-parallel-chosen")
    .getByText(/^46 rows/)
    .waitFor();
  await map.focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/runs\/.*-\d+/);
});

test("mistakes and refusals stand at their fields, and nothing typed is lost", async ({ open }) => {
  const page = await freshForm(open);
  await page.locator("[name='low-fast']").fill("1");
  await page
    .locator(".field.invalid", { hasText: "parameter 'fast' of sma_cross must be a whole number within 2..500" })
    .waitFor();
  await page.locator("[name='low-fast']").fill("5");
  await page.getByLabel("Constraint").fill("fats < slow");
  await page
    .locator(".field.invalid", { hasText: "Constraint" })
    .getByText(/did you mean 'fast'/)
    .waitFor();
  await page.getByLabel("Constraint").fill("fast > 900");
  await page
    .getByText(/leaves no combination of 80/)
    .first()
    .waitFor();
  await page.getByLabel("Constraint").fill("");
  await page.getByTestId("sweep-combinations").getByText("77", { exact: true }).waitFor();
  expect(await page.locator(".field.invalid").count()).toBe(0);
});

test("a sweep is watched, paused, left, found again where it was, resumed and stopped", async ({ open, client }) => {
  await slowSweep(client, "watched");
  const page = await open("#/sweeps/watched");
  await statusOf(page, "running");
  await page.getByTestId("sweep-map-readout").getByText(/cells/).waitFor();
  await page.getByRole("button", { name: "Pause", exact: true }).click();
  await statusOf(page, "paused");
  await page.reload();
  await statusOf(page, "paused");
  const { done } = await client.request("GetSweepStatus", { sweepId: "watched" });
  await page
    .getByTestId("sweep-map-readout")
    .getByText(new RegExp(`^${done.toLocaleString("en-US")} cells`))
    .waitFor();
  await page.getByRole("button", { name: "Resume", exact: true }).click();
  await expect
    .poll(async () =>
      Number.parseInt((await page.getByTestId("sweep-map-readout").textContent())?.replace(",", "") ?? "", 10),
    )
    .toBeGreaterThan(done);
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByRole("button", { name: /Stop for good/ }).click();
  await statusOf(page, "stopped");
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByText(/The sweep with its rows will be deleted in/).waitFor();
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByRole("link", { name: "rsi_reversion on SYNTH 1m" }).first().click();
  await statusOf(page, "stopped");
});

test("both screens have no violation in either theme, and lose nothing at 200 %", async ({ open, client }) => {
  const space = { fast: { low: 5, high: 24, step: 1 }, slow: [50, 60, 75] };
  const sweep = await client.request("StartSweep", { sweepId: "looks", config: CONFIG, space });
  expect(sweep.combinations).toBe(60);
  for (const [hash, name] of [
    ["#/sweeps/looks", "sweep"],
    ["#/sweep", "sweep-form"],
    ["#/sweeps", "sweeps"],
  ] as const) {
    const page = await open(hash);
    await settled(page);
    await expectAccessible(page, `${name} in the light theme`);
    await picture(page, `${name}-light`);
    await page.emulateMedia({ colorScheme: "dark" });
    await drawn(page);
    await expectAccessible(page, `${name} in the dark theme`, ["color-contrast"]); // all else is the same
    await picture(page, `${name}-dark`);
  }
  for (const hash of ["#/sweeps/looks", "#/sweep"]) {
    const page = await open(hash, { zoom: 2 });
    await settled(page);
    await expectNothingLost(page, hash);
  }
});
