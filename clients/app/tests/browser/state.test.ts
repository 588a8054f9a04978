import { expect } from "vitest";
import { settled, test } from "./support/app";
import { picture } from "./support/looks";

test("a key that another program sets appears, follows it, and can be edited here", async ({ open, client }) => {
  const page = await open("#/state");
  await settled(page);
  await client.state.set("app_test.live", { dark: true });
  const row = page.getByRole("row").filter({ hasText: "app_test.live" });
  await row.waitFor();
  await row.click();
  const text = page.getByLabel("Value as JSON");
  await expect.poll(async () => JSON.parse(await text.inputValue())).toEqual({ dark: true });
  await client.state.set("app_test.live", { dark: false });
  await expect.poll(async () => JSON.parse(await text.inputValue())).toEqual({ dark: false });

  await text.fill('{"dark": false, "size": 3}');
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await expect.poll(() => client.state.peek("app_test.live")).toEqual({ dark: false, size: 3 });
});

test("a change that comes while something is typed is told, and nothing is overwritten unasked", async ({
  open,
  client,
}) => {
  await client.state.set("app_test.conflict", { theirs: 1 });
  const page = await open("#/state/app_test.conflict");
  await settled(page);
  const text = page.getByLabel("Value as JSON");
  await text.fill('{"mine": true}');
  await client.state.set("app_test.conflict", { theirs: 2 });
  await page.getByText("It was changed while you typed.").waitFor();
  expect(await text.inputValue()).toBe('{"mine": true}');
  expect(await page.getByRole("button", { name: "Save", exact: true }).isDisabled()).toBe(true);
  await picture(page, "state-conflict");
  await page.getByRole("button", { name: "Take theirs" }).click();
  expect(JSON.parse(await text.inputValue())).toEqual({ theirs: 2 });

  await text.fill('{"mine": true}');
  await client.state.set("app_test.conflict", { theirs: 3 });
  await page.getByRole("button", { name: "Put mine over it" }).click();
  await expect.poll(() => client.state.peek("app_test.conflict")).toEqual({ mine: true });
});

test("text that is no JSON is named by line and column and cannot be saved", async ({ open, client }) => {
  await client.state.set("app_test.json", 1);
  const page = await open("#/state/app_test.json");
  await settled(page);
  await page.getByLabel("Value as JSON").fill('{\n  "a": 1,\n  oops\n}');
  await page.getByText(/This is no JSON, line 3, column 3/).waitFor();
  expect(await page.getByRole("button", { name: "Save", exact: true }).isDisabled()).toBe(true);
});

test("a key is made, refused where it is there already, deleted, and brought back", async ({ open, client }) => {
  await client.state.set("app_test.there", 1);
  const page = await open("#/state");
  await settled(page);
  await page.getByRole("button", { name: "New key" }).click();
  const form = page.getByRole("region", { name: "New key" });
  await form.getByLabel("Key").fill("app_test.there");
  await form.getByRole("button", { name: "Create" }).click();
  await form.getByText("This key has a value already").waitFor();
  await form.getByLabel("Key").fill("app_test.made");
  await form.getByLabel("Value as JSON").fill("[1, 2]");
  await form.getByRole("button", { name: "Create" }).click();
  const panel = page.getByRole("region", { name: "app_test.made" });
  await panel.waitFor();
  await expect.poll(() => client.state.peek("app_test.made")).toEqual([1, 2]);
  await panel.getByRole("button", { name: "Delete" }).click();
  await page.getByText("app_test.made has no value, or was deleted.").waitFor();
  await page.getByRole("button", { name: "Undo" }).click();
  await panel.waitFor();
  await expect.poll(() => client.state.peek("app_test.made")).toEqual([1, 2]);
});

test("large values and those that JSON cannot hold are shown in part, and not edited", async ({ open, client }) => {
  await client.state.set(
    "app_test.large",
    Array.from({ length: 40_000 }, (_, at) => at),
  );
  await client.state.set("app_test.foreign", { ratio: Number.NaN, bytes: new Uint8Array(12) });
  const page = await open("#/state/app_test.large");
  await settled(page);
  await page.getByText("It is too long to be edited here.").waitFor();
  expect((await page.getByLabel("Value as JSON").inputValue()).length).toBe(65_536);
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save as a file" }).click();
  expect((await download).suggestedFilename()).toBe("app_test.large.json");
  await page.getByRole("row").filter({ hasText: "app_test.foreign" }).click();
  await page.getByText(/JSON cannot hold 12 bytes/).waitFor();
  expect(await page.getByLabel("Value as JSON").inputValue()).toMatch(/"12 bytes"[\s\S]*"NaN"/);
});

test("a filter leaves the keys with its words", async ({ open, client }) => {
  await client.state.set("app_test.alpha", 1);
  await client.state.set("app_test.beta", 1);
  const page = await open("#/state");
  await settled(page);
  await page.getByLabel("Filter keys").fill("test alpha");
  await expect.poll(() => page.locator(".table-rows .table-row").count()).toBe(1);
});
