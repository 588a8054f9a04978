/** The screen Run: a generated form, its mistakes in the broker's words, drafts that outlive the page, copies that run. */

import { execFile } from "node:child_process";
import { dirname } from "node:path";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import { expect, inject } from "vitest";
import { PYTHON, ROOT } from "../../../typescript/tests/support/broker";
import { settled, test } from "./support/app";

const run = promisify(execFile);

async function runAs(command: string, args: readonly string[]): Promise<string> {
  const environment = { ...process.env, BACKTESTR_RUNTIME_DIR: dirname(inject("connectionFile")) };
  const path = `${dirname(PYTHON)}:${process.env.PATH ?? ""}`;
  const { stdout } = await run(command, args, { cwd: ROOT, env: { ...environment, PATH: path }, timeout: 60_000 });
  return stdout;
}

async function cleared(page: Page): Promise<void> {
  await settled(page);
  await page.getByRole("button", { name: "Clear", exact: true }).click();
  await page.getByText("The form is empty again.").waitFor();
  // Other tests have left series of theirs.
  await page.getByLabel("Symbol", { exact: true }).selectOption("SYNTH");
  await page.getByLabel("Timeframe").fill("1m");
  await page.getByText("Draft kept by the broker").waitFor();
}

test("the form has the parameters with bounds and relations, and says mistakes as the broker does", async ({
  open,
  client,
}) => {
  const page = await open("#/run");
  await cleared(page);
  const fast = page.getByLabel("fast", { exact: true });
  expect(await fast.getAttribute("placeholder")).toBe("10");
  await fast.fill("9999");
  const message = page.getByText("parameter 'fast' of sma_cross must be a whole number within 2..500, not '9999'");
  await message.first().waitFor();
  await fast.fill("40");
  const relation = "sma_cross requires fast < slow; fast is 40 and slow is 30";
  await page.locator(".field-error", { hasText: relation }).first().waitFor();
  const config = { symbol: "SYNTH", timeframe: "1m", initialCapital: 1, commission: 0, slippage: 0 };
  await expect(
    client.request("StartBacktest", { algorithmId: "sma_cross", ...config, parameters: { fast: 40 } }),
  ).rejects.toThrow(relation);
  await fast.press("Control+a");
  await fast.fill("12");
  await page.getByText(/The broker has run the algorithm on the last 400 bars/).waitFor();
});

test("a broken form is not sent, its first mistake takes the focus, and all of it is kept", async ({ open }) => {
  const page = await open("#/run");
  await cleared(page);
  await page.getByLabel("Start", { exact: true }).fill("yesterday");
  await page.getByLabel("Commission").fill("0,5 %");
  await page.getByRole("button", { name: "Start the backtest" }).click();
  await page.getByText("Before it can start").waitFor();
  expect(await page.evaluate(() => (document.activeElement as HTMLInputElement).name)).toBe("start");
  expect(await page.getByLabel("Commission").inputValue()).toBe("0,5 %");
});

test("what the broker refuses is shown at its field, with everything typed still there", async ({ open }) => {
  const page = await open("#/run");
  await cleared(page);
  await page.getByText("Account", { exact: true }).click();
  await page.getByLabel("Leverage", { exact: true }).fill("2");
  await page.getByLabel("Maintenance margin").fill("60");
  await page.getByRole("button", { name: "Start the backtest" }).click();
  await page.getByText("The broker did not start it").waitFor();
  await page.locator(".field.invalid", { hasText: "Maintenance margin" }).waitFor();
  expect(await page.getByLabel("Leverage", { exact: true }).inputValue()).toBe("2");
});

test("a draft outlives the page, and another page has it at once", async ({ open }) => {
  const page = await open("#/run");
  await cleared(page);
  const other = await open("#/run");
  await settled(other);
  await page.getByLabel("slow", { exact: true }).fill("77");
  await expect.poll(() => other.getByLabel("slow", { exact: true }).inputValue()).toBe("77");
  await page.getByText("Draft kept by the broker").waitFor();
  await page.reload();
  await settled(page);
  expect(await page.getByLabel("slow", { exact: true }).inputValue()).toBe("77");
});

test("copies as Python and as a command run, and give what the app's backtest gives", async ({ open, client }) => {
  const page = await open("#/run");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await cleared(page);
  await page.getByLabel("fast", { exact: true }).fill("7");
  await page.getByLabel("Start", { exact: true }).fill("2024-01-03");
  await page.getByLabel("Commission").fill("0.05");
  await page.getByText("Exits", { exact: true }).click();
  await page.getByLabel("Stop loss").fill("2.5");
  await page.getByText("Sizes", { exact: true }).click();
  await page.getByLabel("Size of an entry").selectOption("fraction");
  await page.getByLabel("Value of the size").fill("0.5");
  const copied = async (name: string): Promise<string> => {
    await page.getByRole("button", { name }).click();
    return page.evaluate(() => navigator.clipboard.readText());
  };
  const python = await copied("Copy as Python");
  const command = await copied("Copy as CLI");
  const before = new Set((await client.request("ListBacktests", {})).backtests.map((one) => one.backtestId));
  await runAs(PYTHON, ["-c", python]);
  await runAs("/bin/sh", ["-c", command.replace("backtestr ", `${PYTHON} -m backtestr `)]);
  await page.getByRole("button", { name: "Start the backtest" }).click();
  await page.waitForURL(/#\/runs\/[0-9a-f-]{36}/);
  const fromPage = await client.run(new URL(page.url()).hash.replace("#/runs/", ""));
  expect((await fromPage.wait()).status).toBe("completed");
  const result = await client.results(fromPage.id);
  expect(result.config).toMatchObject({ commission: 0.0005, parameters: { fast: 7, slow: 30 } });
  expect(result.config.options).toMatchObject({ stopLoss: 0.025, size: "fraction", sizeValue: 0.5 });
  const started = (await client.request("ListBacktests", {})).backtests.filter((one) => !before.has(one.backtestId));
  expect(started.length).toBe(3);
  for (const { backtestId } of started) {
    const { config, metrics } = await client.results(backtestId);
    // Python writes the date as a time.
    const own = { backtestId: "", startDate: Date.parse(String(config.startDate)) };
    expect({ ...config, ...own }).toEqual({ ...result.config, ...own });
    expect(own.startDate).toBe(Date.UTC(2024, 0, 3));
    expect(metrics).toEqual(result.metrics);
  }
});

test("a result's configuration is copied into the form", async ({ open, client }) => {
  const started = await client.backtest({
    algorithm: "rsi_reversion",
    symbol: "SYNTH",
    timeframe: "1d",
    slippage: 0.001,
    options: { fillAt: "close", stopLoss: 0.1 },
  });
  await started.wait();
  const page = await open(`#/run?copy=${started.id}`);
  await settled(page);
  await expect.poll(() => page.getByLabel("Algorithm", { exact: true }).inputValue()).toBe("rsi_reversion");
  expect(await page.getByLabel("Slippage", { exact: true }).inputValue()).toBe("0.1");
  expect(await page.getByLabel("Timeframe").inputValue()).toBe("1d");
  expect(await page.getByLabel("Stop loss").inputValue()).toBe("10");
});
