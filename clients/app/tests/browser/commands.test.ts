/** Commands, shortcuts, definitions and themes, all by keys. */

import { expect } from "vitest";
import { drawn, settled, test } from "./support/app";

test("the commands find a series by its words, and open it", async ({ open }) => {
  const page = await open("#/runs");
  await settled(page);
  await page.keyboard.press("Control+k");
  const box = page.getByRole("combobox", { name: "Command" });
  await box.fill("1d synth");
  await page.getByRole("option", { name: "Series SYNTH 1d" }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByRole("region", { name: "SYNTH 1d" }).waitFor();
  expect(new URL(page.url()).hash).toBe("#/data/SYNTH/1d");
  expect(await box.count()).toBe(0);
});

test("keys typed into a field are no shortcuts", async ({ open }) => {
  const page = await open("#/data");
  await settled(page);
  await page.getByLabel("Filter series").pressSequentially("g r?");
  expect(new URL(page.url()).hash).toBe("#/data");
  expect(await page.getByLabel("Filter series").inputValue()).toBe("g r?");
  await page.getByText("No series has these words.").waitFor();
});

test("the shortcuts are listed, and Escape returns to where one was", async ({ open }) => {
  const page = await open("#/data");
  await settled(page);
  await page.getByRole("button", { name: "Import a file" }).focus();
  await page.keyboard.press("?");
  const dialog = page.getByRole("dialog", { name: "Shortcuts" });
  await dialog.getByText("Go to Run").waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Import a file");
});

test("the first Tab offers the way past the navigation", async ({ open }) => {
  const page = await open("#/data");
  await settled(page);
  await page.keyboard.press("Tab");
  await page.getByRole("button", { name: "Skip to the content" }).press("Enter");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");
});

test("a word of the status bar explains itself when it is reached by Tab", async ({ open }) => {
  const page = await open("#/data");
  await settled(page);
  const word = page.locator(".status-bar").getByRole("button", { name: "Connected" });
  await page.getByRole("button", { name: /^Commands/ }).focus();
  for (let tab = 0; tab < 40; tab += 1) {
    if (await word.evaluate((one) => one === document.activeElement)) break;
    await page.keyboard.press("Tab");
  }
  await page.getByText("The connection to the broker is open.").waitFor();
  await page.keyboard.press("Escape");
  await page.getByText("The connection to the broker is open.").waitFor({ state: "hidden" });
});

test("a theme that was chosen holds against the system's, also after a reload", async ({ open }) => {
  const page = await open("#/data", { theme: "light" });
  await settled(page);
  const background = (): Promise<string> => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Command" }).fill("theme dark");
  await page.keyboard.press("Enter");
  await drawn(page);
  const dark = await background();
  expect(dark).not.toBe(light);
  await page.reload();
  await settled(page);
  expect(await background()).toBe(dark);
});
