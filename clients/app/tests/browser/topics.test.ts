import { expect } from "vitest";
import { settled, test } from "./support/app";
import { picture } from "./support/looks";

test("a subscription shows topics with their rate, and the messages of the one that is chosen", async ({
  open,
  client,
}) => {
  const page = await open("#/topics");
  await settled(page);
  await page.getByLabel(/^Topic, or the beginning/).fill("system.");
  await page.getByRole("button", { name: "Subscribe" }).click();
  const row = page.getByRole("row").filter({ hasText: "system.status" });
  await row.waitFor();
  await expect
    .poll(async () => Number((await row.getByRole("gridcell").nth(1).innerText()).replace("k", "000")))
    .toBeGreaterThan(5);
  await row.click();
  const messages = page.getByRole("region", { name: "Messages of system.status" });
  await messages.locator("summary").first().waitFor();

  await page.getByRole("button", { name: "Pause" }).click();
  const before = await row.innerText();
  const seen =
    (await client.systemStatus()).streams?.perTopic.find((one) => one.topic === "system.status")?.messages ?? 0;
  await expect
    .poll(
      async () =>
        (await client.systemStatus()).streams?.perTopic.find((one) => one.topic === "system.status")?.messages ?? 0,
    )
    .toBeGreaterThan(seen + 5);
  expect(await row.innerText()).toBe(before);
  await messages.locator("summary").first().click();
  await messages.getByText('"uptimeMs"').waitFor();
  await picture(page, "topics-paused");
  await page.getByRole("button", { name: "Go on" }).click();
  await expect.poll(() => row.innerText()).not.toBe(before);

  await page.getByRole("button", { name: "End the subscription to system." }).click();
  await page.getByText("Nothing is subscribed").waitFor();
});

test("a thousand prices come as columns, each counted, the last ones kept", async ({ open, client }) => {
  const page = await open("#/topics/prices.");
  await settled(page);
  await page.getByRole("list", { name: "Subscriptions" }).getByText("prices.").waitFor();
  const price = { symbol: "APPFEED", bid: 1, ask: 2, last: 1.5, volume: 1, timeframe: "tick" };
  const prices = Array.from({ length: 100 }, (_, at) => ({ ...price, timestamp: 1_700_000_000_000 + at }));
  const row = page.getByRole("row").filter({ hasText: "prices.APPFEED.tick" });
  await expect
    .poll(async () => {
      // The subscription may begin after the first ones: a topic is told from its present end on.
      await client.publishPrices(prices);
      return row.count();
    })
    .toBe(1);
  const messages = async (): Promise<number> =>
    Number((await row.getByRole("gridcell").nth(2).innerText()).replace(/,/g, ""));
  await expect.poll(messages).toBeGreaterThan(0);
  const before = await messages();
  for (let batch = 0; batch < 10; batch += 1) await client.publishPrices(prices);
  await expect.poll(async () => ((await messages()) - before) % 100).toBe(0);
  await expect.poll(messages).toBeGreaterThanOrEqual(before + 1_000);
  await row.click();
  await page.getByText(/the last 50 of/).waitFor();
  expect(await row.getByRole("gridcell").nth(4).innerText()).toBe("0");
  await page.getByRole("button", { name: "Clear" }).click();
  await page.getByText("No message has come yet.").waitFor();
});

test("what is no topic is refused in words", async ({ open }) => {
  const page = await open("#/topics");
  await settled(page);
  await page.getByRole("button", { name: "Subscribe" }).click();
  await page.getByText("Name a topic, or the beginning of topics").waitFor();
  await page.getByLabel(/^Topic, or the beginning/).fill("two words");
  await page.getByText("A topic has no spaces.").waitFor();
});
