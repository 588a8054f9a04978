/** The comparison of results. */

import { expect } from "vitest";
import { test } from "./support/app";

test("curves, metrics with the best marked, and what differs, for results that come and go", async ({
  open,
  client,
}) => {
  const runs = await Promise.all(
    [5, 20].map((fast) =>
      client.backtest({
        algorithm: "sma_cross",
        symbol: "SYNTH",
        timeframe: "1m",
        start: "2024-01-01",
        end: "2024-01-06",
        parameters: { fast, slow: 60 },
        watch: [],
      }),
    ),
  );
  await Promise.all(runs.map((one) => one.wait()));
  const ids = runs.map(({ id }) => id);
  const metrics = await Promise.all(ids.map((id) => client.metrics(id)));
  const page = await open(`#/compare?ids=${ids.join(",")}`);
  await page.getByTestId("chart-compare").locator("canvas").waitFor();
  const row = page.getByTestId("compare-metrics").getByRole("row", { name: /^Final equity/ });
  const cells = row.locator("td");
  await expect.poll(() => cells.count()).toBe(2);
  const equity = metrics.map((one) => one?.finalEquity ?? 0);
  const best = equity.indexOf(Math.max(...equity));
  expect(await row.locator("td.best").count()).toBe(1);
  expect(await cells.nth(best).innerText()).toContain("★");
  const config = page.getByTestId("compare-config");
  await config.getByText("parameters.fast").waitFor();
  expect(await config.getByRole("row").count()).toBe(2);
  await config.getByText("Show all values").click();
  await config.getByText("options.fillAt").waitFor();

  await page.getByRole("button", { name: /^Leave out 2\./ }).click();
  await page.waitForURL(new RegExp(`ids=${ids[0]}$`));
  await expect.poll(() => cells.count()).toBe(1);
  await page.getByLabel("Add a result").selectOption(ids[1] as string);
  await expect.poll(() => cells.count()).toBe(2);
});

test("nothing to compare, and a result that is not there, are said", async ({ open }) => {
  const page = await open("#/compare");
  await page.getByText("Nothing is compared yet").waitFor();
  const other = await open("#/compare?ids=nothing-of-this-name");
  await other.getByText(/could not be read/).waitFor();
  await other.getByRole("button", { name: "Leave it out" }).click();
  await other.getByText("Nothing is compared yet").waitFor();
});
