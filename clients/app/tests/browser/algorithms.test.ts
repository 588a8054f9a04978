import type { Page } from "playwright-core";
import { expect } from "vitest";
import { settled, test } from "./support/app";
import { expectAccessible, picture } from "./support/looks";

const HEAD = "from backtestr_engine.authoring import Bars, Int, Signals, algorithm, sma\n\n\n";
const GOOD = `${HEAD}@algorithm("app_cross", fast=Int(5, low=2, high=50, description="bars in the fast average"))
def app_cross(bars: Bars, fast: int) -> Signals:
    """Long above an average."""
    above = bars.close > sma(bars.close, fast)
    return Signals.of(entries=above, exits=~above)
`;
const AHEAD = `${HEAD}@algorithm("app_peek")
def app_peek(bars: Bars) -> Signals:
    """Knows the next close."""
    rises = bars.close.copy()
    rises[:-1] = bars.close[1:]
    return Signals.of(entries=rises > bars.close, exits=rises < bars.close)
`;
// It is refused nothing at its registration, and fails in each backtest: the fault is two calls deep.
const FAILING = `${HEAD}@algorithm("app_fails", fast=Int(5, low=2, high=50))
def app_fails(bars: Bars, fast: int) -> Signals:
    return step(bars, fast)


def step(bars: Bars, fast: int) -> Signals:
    level = bars.close[fast] / 0.0
    raise ValueError(f"no level: {fast}")
`;

async function choose(page: Page, name: string, source: string): Promise<void> {
  await page
    .getByLabel("Files of algorithms to register")
    .setInputFiles({ name, mimeType: "text/x-python", buffer: Buffer.from(source) });
}

function card(page: Page, name: string) {
  return page.getByRole("region", { name: `Registration of ${name}` });
}

test("an algorithm that is built in shows its parameters, bounds, relations and defaults", async ({ open }) => {
  const page = await open("#/algorithms/sma_cross");
  await settled(page);
  const panel = page.getByRole("region", { name: "sma_cross" });
  const row = panel.getByRole("row").filter({ hasText: "fast" }).first();
  expect(await row.innerText()).toMatch(/fast\s+whole number\s+10\s+2 … 500\s+bars in the fast average/);
  expect(await panel.innerText()).toContain("fast < slow");
  expect(await panel.innerText()).toContain("Built in");
  await panel.getByRole("button", { name: "Backtest it" }).click();
  await page.waitForFunction(() => window.location.hash === "#/run");
});

test("a file is registered with its verdict, and once more as another version", async ({ open }) => {
  const page = await open("#/algorithms");
  await settled(page);
  await choose(page, "cross.py", GOOD);
  const first = card(page, "cross.py");
  expect(await first.getByLabel("Name").inputValue()).toBe("app_cross");
  await first.getByRole("button", { name: "Register", exact: true }).click();
  await first.getByText("is registered as version").waitFor();
  expect(await first.innerText()).toContain("Passed");
  await first.getByRole("button", { name: "Look at it" }).click();
  const panel = page.getByRole("region", { name: "app_cross", exact: true });
  await panel.getByText("Long above an average.").waitFor();
  const version = await panel.locator("dd code").first().innerText();

  await choose(page, "cross.py", GOOD.replace("Int(5", "Int(7"));
  await card(page, "cross.py").getByText("Becomes a new version").waitFor();
  await card(page, "cross.py").getByRole("button", { name: "Register", exact: true }).click();
  await card(page, "cross.py").getByText("is registered as version").waitFor();
  await expect.poll(() => panel.locator("dd code").first().innerText()).not.toBe(version);
});

test("a source that looks ahead is named with the bar that tells it", async ({ open }) => {
  const page = await open("#/algorithms");
  await settled(page);
  await choose(page, "peek.py", AHEAD);
  await card(page, "peek.py").getByRole("button", { name: "Register", exact: true }).click();
  await card(page, "peek.py").getByText("Looks ahead").waitFor();
  expect(await card(page, "peek.py").innerText()).toMatch(/entries of bar [\d,]+ changes when bars after bar/);
  await picture(page, "algorithms-look-ahead");
});

test("a source that does not compile is shown at its line, and its corrected file takes its place", async ({
  open,
}) => {
  const page = await open("#/algorithms");
  await settled(page);
  await choose(
    page,
    "broken.py",
    GOOD.replace("~above", "~abve")
      .replace("app_cross", "app_broken")
      .replace("def app_cross(bars: Bars, fast: int) ->", "def app_cross(bars: Bars, fast: int"),
  );
  const broken = card(page, "broken.py");
  await broken.getByRole("button", { name: "Register", exact: true }).click();
  const alert = broken.getByRole("alert");
  await alert.waitFor();
  expect(await alert.locator(".source-line.raised").innerText()).toContain("def app_cross");
  expect(await alert.locator(".source-words").innerText()).toContain("SyntaxError");
  await picture(page, "algorithms-refused");
  await expectAccessible(page, "a refused source");

  await choose(page, "broken.py", GOOD.replace("app_cross", "app_broken"));
  await expect.poll(() => page.getByRole("region", { name: /^Registration of/ }).count()).toBe(1);
  await card(page, "broken.py").getByRole("button", { name: "Register", exact: true }).click();
  await card(page, "broken.py").getByText("is registered as version").waitFor();
});

test("an algorithm that failed in a backtest shows its error in the source that was registered here", async ({
  open,
  client,
}) => {
  const page = await open("#/algorithms");
  await settled(page);
  await choose(page, "fails.py", FAILING);
  await card(page, "fails.py").getByRole("button", { name: "Register", exact: true }).click();
  await card(page, "fails.py").getByText("Check failed").waitFor();
  await card(page, "fails.py").getByRole("button", { name: "Look at it" }).click();
  const run = await client.backtest({ algorithm: "app_fails", symbol: "SYNTH", timeframe: "1d" });
  await expect(run.result()).rejects.toThrow("no level: 5");
  const panel = page.getByRole("region", { name: "app_fails", exact: true });
  await panel.getByText(/Its last error/).waitFor();
  const lines = await panel.locator(".source-line.failed").allInnerTexts();
  expect(lines.join("\n")).toMatch(/return step\(bars, fast\)[\s\S]*raise ValueError/);
  expect(await panel.getByRole("alert").locator(".source-words").innerText()).toContain("ValueError: no level: 5");
  await picture(page, "algorithms-failed");
});

test("a file dropped on the screen is offered, and one that is no text is refused in words", async ({ open }) => {
  const page = await open("#/algorithms");
  await settled(page);
  const transfer = await page.evaluateHandle((source) => {
    const files = new DataTransfer();
    files.items.add(new File([source], "dropped.py", { type: "text/x-python" }));
    return files;
  }, GOOD);
  const screen = page.locator(".algorithms-screen");
  await screen.dispatchEvent("dragover", { dataTransfer: transfer });
  await page.getByText("Drop a Python file").waitFor();
  await screen.dispatchEvent("drop", { dataTransfer: transfer });
  await card(page, "dropped.py").waitFor();
  await choose(page, "large.py", "#".repeat(1_100_000));
  await page.getByText("is too large for a source").waitFor();
});
