/** Two pages and a notebook in step: what one of them does, the others show without being asked. */

import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject } from "vitest";
import { settled, test } from "./support/app";
import { Notebook } from "./support/notebook";

let notebook: Notebook;

beforeAll(async () => {
  notebook = await Notebook.started(inject("connectionFile"));
});

afterAll(() => notebook?.end());

type Open = (hash?: string) => Promise<Page>;

async function twoPages(open: Open, hash: string): Promise<[Page, Page]> {
  const pages = await Promise.all([open(hash), open(hash)]);
  await Promise.all(pages.map(settled));
  return pages as [Page, Page];
}

async function both(pages: readonly Page[], seen: (page: Page) => Promise<unknown>): Promise<void> {
  await Promise.all(pages.map(seen));
}

test("a backtest of the notebook is listed in both pages, and one page pauses it for all", async ({ open }) => {
  const pages = await twoPages(open, "#/runs");
  const options = `timeframe="1m", pace=20, start="2024-01-02", end="2024-01-12"`;
  const id = await notebook.value(`client.backtest("sma_cross", "SYNTH", ${options}).id`);
  await both(pages, async (page) => {
    await page.getByLabel("Filter backtests").fill(String(id));
    await page.locator(".table-rows .run-status.running").waitFor();
    await page.evaluate((to) => {
      location.hash = `#/runs/${to}`;
    }, String(id));
  });
  const [one, other] = pages;
  const stateOf = (): Promise<unknown> => notebook.value(`client.backtest_status("${id}").status`);

  await one.getByRole("button", { name: "Pause" }).click();
  await both(pages, (page) => page.getByRole("button", { name: "Resume" }).waitFor());
  expect(await stateOf()).toBe("paused");

  await notebook.value(`client.resume("${id}")`);
  await both(pages, (page) => page.getByRole("button", { name: "Pause" }).waitFor());

  await other.getByRole("button", { name: "Pause" }).click();
  await both(pages, (page) => page.getByRole("button", { name: "Resume" }).waitFor());
  await notebook.value(`client.stop("${id}")`);
  await both(pages, (page) => page.getByRole("button", { name: "Resume" }).waitFor({ state: "detached" }));
  expect(await stateOf()).toBe("stopped");
  const equity = await notebook.value(`client.results("${id}").metrics.final_equity > 0`);
  expect(equity).toBe(true);
}, 120_000);

test("a draft is the same in both pages and in the notebook, whoever changes it", async ({ open }) => {
  const [one, other] = await twoPages(open, "#/run");
  const slow = (page: Page) => page.getByLabel("slow", { exact: true });
  await one.getByLabel("Algorithm", { exact: true }).selectOption("sma_cross"); // another test may have left another one
  await slow(one).fill("61");
  await expect.poll(() => slow(other).inputValue()).toBe("61");
  const keys = `[key for key in state.keys() if key.startswith("app.draft.")]`;
  await expect.poll(() => notebook.value(keys)).toContainEqual(expect.stringContaining("app.draft."));
  const key = ((await notebook.value(keys)) as string[]).find((name) => name.includes("run")) ?? "";
  const text = async (): Promise<string> => JSON.stringify(await notebook.value(`state.get("${key}")`));
  await expect.poll(text).toContain('"61"');
  const changed = (await text()).replace('"61"', '"62"');
  await notebook.value(`state.update("${key}", json.loads(${JSON.stringify(changed)}))`);
  await expect.poll(() => slow(one).inputValue()).toBe("62");
  await expect.poll(() => slow(other).inputValue()).toBe("62");
});

test("keys and topics of the notebook are live in both pages", async ({ open }) => {
  const [state, topics] = await Promise.all([open("#/state"), open("#/topics/system.backtests")]);
  await Promise.all([settled(state), settled(topics)]);
  await notebook.value(`state.update("notebook.theme", {"dark": True})`);
  const row = state.getByRole("row").filter({ hasText: "notebook.theme" });
  await row.getByText("true").waitFor();
  await notebook.value(`state.update("notebook.theme", {"dark": False})`);
  await row.getByText("false").waitFor();
  const id = await notebook.value(`client.backtest("buy_and_hold", "SYNTH", timeframe="1d").id`);
  await topics.getByRole("row").filter({ hasText: "system.backtests" }).click();
  const messages = topics.getByRole("region", { name: "Messages of system.backtests" });
  await messages.locator("summary").first().click();
  await expect.poll(() => messages.innerText()).toContain(String(id));
  await notebook.value(`state.delete("notebook.theme")`);
  await row.waitFor({ state: "detached" });
});

test("what the notebook imports stands in the catalogue when a page enters it", async ({ open }) => {
  const pages = await twoPages(open, "#/data");
  const rows = Array.from({ length: 20 }, (_, day) => `2024-03-${String(day + 1).padStart(2, "0")},1,2,0.5,1.5,10`);
  const text = ["date,open,high,low,close,volume", ...rows].join("\\n");
  const write = `__import__("pathlib").Path("${inject("connectionFile")}").with_name("instep.csv")`;
  await notebook.value(`${write}.write_text("${text}\\n")`);
  await notebook.value(`client.import_market_data(${write}, symbol="INSTEP", timeframe="1d").bars`);
  // Nothing tells of imports: a page looks when its screen is entered.
  await both(pages, async (page) => {
    await page.evaluate(() => {
      location.hash = "#/runs";
    });
    await page.getByRole("heading", { name: "Results" }).first().waitFor();
    await page.evaluate(() => {
      location.hash = "#/data";
    });
    await page.getByText("INSTEP").first().waitFor();
  });
});
