import { expect } from "vitest";
import { settled, test } from "./support/app";

test("the page connects, names its screen, and reaches every screen by its keys", async ({ open }) => {
  const page = await open("#/data");
  await settled(page);
  expect(await page.title()).toBe("Data – backtestr");
  for (const [keys, title] of [
    ["g r", "Run"],
    ["g l", "Results"],
    ["g c", "Compare"],
    ["g a", "Algorithms"],
    ["g s", "Shared state"],
    ["g t", "Topics"],
  ] as const) {
    for (const key of keys.split(" ")) await page.keyboard.press(key);
    await page.waitForFunction((wanted) => document.title === `${wanted} – backtestr`, title);
    await settled(page);
  }
});
