/** A newcomer's path from a file to a comparison, by mouse with real prices, and by the keyboard alone. */

import type { Page } from "playwright-core";
import { expect } from "vitest";
import { settled, test } from "./support/app";
import { csvOfBars, realFile } from "./support/data";

const REAL = realFile("btc_perp_1m_2022-01.csv");

/** Takes the id of a backtest out of the address of its screen. */
async function backtestId(page: Page): Promise<string> {
  await page.waitForURL(/#\/runs\/[0-9a-f-]{36}/);
  return /[0-9a-f-]{36}/.exec(page.url())?.[0] ?? "";
}

test.skipIf(REAL === undefined)(
  `import, configure, run, pause, resume, result, compare${REAL === undefined ? " (no real data: set BACKTESTR_TEST_DATA)" : ""}`,
  async ({ open, client }) => {
    const page = await open("");
    await settled(page);
    await page.getByLabel("Files to import").setInputFiles(REAL as string);
    await page.getByLabel("Symbol", { exact: true }).fill("NEWCOMER");
    await page.getByRole("button", { name: "Import", exact: true }).click();
    await page.getByText(/is stored: 45,031 bars/).waitFor();
    await page.locator(".import-actions").getByRole("button", { name: "Backtest it" }).click();

    await page.getByLabel("Algorithm", { exact: true }).selectOption("sma_cross");
    await expect.poll(() => page.getByText("NEWCOMER").count()).toBeGreaterThan(0);
    await page.getByLabel("fast", { exact: true }).fill("60");
    await page.getByLabel("slow", { exact: true }).fill("240");
    await page.getByLabel("Commission").fill("0.04");
    await page.getByText("Watch it", { exact: true }).click();
    await page.getByLabel("Pace").fill("4000");
    await page.getByRole("button", { name: "Start the backtest" }).click();
    const first = await backtestId(page);
    await page.getByTestId("live-figures").waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await page.locator(".status-word.paused").waitFor();
    expect((await client.backtestStatus(first)).status).toBe("paused");
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByTestId("result-screen").waitFor({ timeout: 40_000 });
    const { metrics, config } = await client.results(first);
    expect(config).toMatchObject({ symbol: "NEWCOMER", parameters: { fast: 60, slow: 240 } });
    await expect
      .poll(async () =>
        Number((await page.getByTestId("metric-totalTrades").locator("dd").innerText()).replace(",", "")),
      )
      .toBe(metrics?.totalTrades);

    // Another one from its configuration, at full speed, and both side by side.
    await page.getByRole("link", { name: /^Run again/ }).click();
    await expect.poll(() => page.getByLabel("fast", { exact: true }).inputValue()).toBe("60");
    await page.getByLabel("fast", { exact: true }).fill("30");
    await page.getByLabel("Pace").fill("");
    await page.getByRole("button", { name: "Start the backtest" }).click();
    await expect.poll(() => backtestId(page)).not.toBe(first);
    const second = await backtestId(page);
    await page.getByTestId("result-screen").waitFor();
    await page.getByRole("link", { name: "Results", exact: true }).click();
    await page.getByLabel("Filter backtests").fill("newcomer");
    const boxes = page.locator(".table-rows").getByRole("checkbox");
    await expect.poll(() => boxes.count()).toBe(2);
    await boxes.nth(0).check();
    await boxes.nth(1).check();
    await page.getByRole("button", { name: "Compare 2" }).click();
    await page.getByTestId("compare-metrics").waitFor();
    expect(page.url()).toContain(first);
    expect(page.url()).toContain(second);
    expect(await page.getByTestId("compare-config").innerText()).toContain("fast");
  },
);

/** Presses Tab until the element with the focus matches a selector, or has this label. */
async function tabTo(page: Page, what: { readonly selector: string } | { readonly label: string }): Promise<void> {
  for (let pressed = 0; pressed < 80; pressed += 1) {
    const there = await page.evaluate((sought) => {
      const focused = document.activeElement;
      if ("selector" in sought) return focused?.matches(sought.selector) === true;
      return [...((focused as HTMLInputElement | null)?.labels ?? [])].some((one) => one.textContent === sought.label);
    }, what);
    if (there) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`80 times Tab does not reach ${JSON.stringify(what)}`);
}

test("the path by the keyboard alone", async ({ open, client }) => {
  const page = await open("#/data");
  await settled(page);
  // The dialog of files is the system's: the button is pressed by its key, and the file is given to the dialog.
  const chooser = page.waitForEvent("filechooser");
  await tabTo(page, { selector: ".screen-header .button.primary" });
  await page.keyboard.press("Enter");
  await (await chooser).setFiles({
    name: "KEYS-1m.csv",
    mimeType: "text/csv",
    buffer: Buffer.from(csvOfBars(3_000, 9)),
  });
  await tabTo(page, { selector: ".import-form .button.primary" });
  await page.keyboard.press("Enter");
  await page.getByText(/is stored: 3,000 bars/).waitFor();
  await tabTo(page, { selector: ".import-actions .button:last-child" });
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/run$/);
  await settled(page);
  await tabTo(page, { label: "fast" });
  await page.keyboard.press("ArrowUp");
  await tabTo(page, { selector: "button[type='submit']" });
  await page.keyboard.press("Enter");
  await backtestId(page);
  await page.getByTestId("result-screen").waitFor();
  const trades = page.getByRole("tab", { name: "Trades" });
  await tabTo(page, { selector: "[role='tab'][aria-selected='true']" });
  await page.keyboard.press("ArrowRight");
  await page.getByTestId("trades").waitFor();
  expect(await trades.getAttribute("aria-selected")).toBe("true");
  // The palette leads everywhere.
  await page.keyboard.press("Control+k");
  await page.keyboard.type("go to results");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/runs$/);
  await page.keyboard.press("Control+k");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  expect((await client.listMarketData()).some((one) => one.symbol === "KEYS")).toBe(true);
});
