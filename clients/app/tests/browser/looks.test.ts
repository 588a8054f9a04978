/**
 * Every screen in both themes and at 200 %: a picture in tests/screenshots for people to look at, the rules of axe, and
 * nothing that is cut off.
 */

import type { Client } from "@backtestr/client";
import type { Page } from "playwright-core";
import { afterAll, beforeAll } from "vitest";
import { drawn, settled, sharedClient, test } from "./support/app";
import { expectAccessible, expectNothingLost, picture } from "./support/looks";
import { endedBacktest, goodSeries, pacedBacktest, type Series } from "./support/seed";

let client: Client;
let series: Series;
let ended: string;
let other: string;
let third: string;
let running: string;

beforeAll(async () => {
  client = await sharedClient();
  series = await goodSeries(client);
  ended = await endedBacktest(client, series);
  other = await endedBacktest(client, series, { algorithm: "rsi_reversion", parameters: { timeperiod: 60 } });
  third = await endedBacktest(client, series, { algorithm: "buy_and_hold", parameters: {} });
  running = await pacedBacktest(client, series, 60);
  await client.state.set("notebook.theme", { dark: true, accent: "#2f55d4" });
  await client.state.set("notebook.watchlist", ["BTCPERP", "GBPUSD", "YHOO"]);
});

afterAll(async () => {
  await client.request("StopBacktest", { backtestId: running });
});

/** The screens by the names of their pictures; `ready` waits for what their data show. */
const SCREENS: readonly {
  readonly name: string;
  route(): string;
  ready?(page: Page): Promise<unknown>;
}[] = [
  {
    name: "data",
    route: () => `#/data/${series.symbol}/${series.timeframe}`,
    ready: (page) => page.getByRole("img").first().waitFor(),
  },
  {
    name: "run",
    route: () => `#/run?copy=${ended}`,
    ready: (page) => page.getByLabel("fast", { exact: true }).waitFor(),
  },
  {
    name: "results",
    route: () => "#/runs",
    ready: (page) => page.getByRole("row").filter({ hasText: "rsi_reversion" }).first().waitFor(),
  },
  { name: "result", route: () => `#/runs/${ended}`, ready: (page) => page.getByTestId("key-figures").waitFor() },
  {
    name: "result-trades",
    route: () => `#/runs/${ended}?view=trades`,
    ready: (page) => page.getByTestId("trades").waitFor(),
  },
  { name: "live", route: () => `#/runs/${running}`, ready: (page) => page.getByTestId("live-figures").waitFor() },
  {
    name: "compare",
    route: () => `#/compare?ids=${ended},${other},${third}`,
    ready: (page) => page.getByTestId("compare-metrics").waitFor(),
  },
  { name: "algorithms", route: () => "#/algorithms/sma_cross" },
  { name: "state", route: () => "#/state/notebook.theme" },
  {
    name: "topics",
    route: () => "#/topics/system.",
    ready: async (page) => {
      await page.getByRole("row").filter({ hasText: "system.status" }).click();
      await page.getByRole("region", { name: "Messages of system.status" }).locator("summary").nth(4).waitFor();
    },
  },
];

async function shown(page: Page, screen: (typeof SCREENS)[number]): Promise<void> {
  await settled(page);
  await screen.ready?.(page);
  await settled(page);
  await drawn(page);
}

for (const screen of SCREENS) {
  // One page in all looks, as loading it costs more than they do.
  test(screen.name, async ({ open }) => {
    const page = await open(screen.route(), { theme: "light" });
    await shown(page, screen);
    await picture(page, `${screen.name}-light`);
    await expectAccessible(page, `${screen.name}, light`);
    await page.emulateMedia({ colorScheme: "dark" });
    await shown(page, screen);
    await picture(page, `${screen.name}-dark`);
    await expectAccessible(page, `${screen.name}, dark`, ["color-contrast"]); // the other rules read no colours
    // At 200 % a window has half as many CSS pixels.
    await page.setViewportSize({ width: 720, height: 450 });
    await shown(page, screen);
    await picture(page, `${screen.name}-200`);
    await expectNothingLost(page, screen.name);
  });
}
