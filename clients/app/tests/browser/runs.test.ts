/** The list of results: ranges and figures, filter, sort, choice, pins and deletion. */

import { expect } from "vitest";
import { settled, test } from "./support/app";

test("results have their ranges and figures, and are filtered, sorted, chosen and compared by keys", async ({
  open,
  client,
}) => {
  const started = await Promise.all(
    [5, 15, 25].map((fast) =>
      client.backtest({
        algorithm: "ema_cross",
        symbol: "SYNTH",
        timeframe: "1m",
        start: "2024-01-02",
        end: "2024-01-06",
        parameters: { fast },
      }),
    ),
  );
  await Promise.all(started.map((one) => one.wait()));
  const page = await open("#/runs");
  await settled(page);
  await page.getByLabel("Filter backtests").fill("ema_cross synth");
  const rows = page.locator(".table-rows .table-row");
  await expect.poll(() => rows.count()).toBe(3);
  await rows.first().getByText("2024-01-02 – 2024-01-06").waitFor();
  await page.getByRole("button", { name: "Return" }).click();
  const returns = async (): Promise<number[]> =>
    (await rows.locator(".table-cell:nth-child(7)").allTextContents()).map((text) =>
      Number(text.replace("−", "-").replace(/[ %+]/g, "")),
    );
  await expect.poll(async () => (await returns()).every((one) => Number.isFinite(one))).toBe(true);
  const sorted = await returns();
  expect(sorted).toEqual([...sorted].sort((one, other) => other - one));
  const metrics = await Promise.all(started.map((one) => client.metrics(one.id)));
  const best = Math.max(...metrics.map((one) => one?.totalReturn ?? Number.NaN));
  expect(sorted[0]).toBeCloseTo(100 * best, 1);
  const table = page.getByRole("grid", { name: "Backtests" });
  await table.focus();
  for (const key of ["Home", " ", "ArrowDown", " "]) await page.keyboard.press(key);
  await page.getByRole("button", { name: "Compare 2" }).click();
  await page.waitForURL(/#\/compare\?ids=/);
});

test("a result is pinned, and one that is deleted can be kept", async ({ open, client }) => {
  const started = await client.backtest({ algorithm: "buy_and_hold", symbol: "SYNTH", timeframe: "1d" });
  await started.wait();
  const page = await open("#/runs");
  await settled(page);
  await page.getByLabel("Filter backtests").fill(started.id);
  const row = page.locator(".table-rows .table-row");
  await expect.poll(() => row.count()).toBe(1);
  await row.getByRole("button", { name: /^Pin/ }).click();
  await row.locator("[aria-pressed=true]").waitFor();
  const pinned = (await client.request("ListResults", {})).results.find((one) => one.backtestId === started.id);
  expect(pinned?.pinned).toBe(true);
  await row.getByRole("checkbox").check();
  await page.getByRole("button", { name: "Delete 1" }).click();
  await row.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Undo" }).click();
  await row.waitFor();
});
