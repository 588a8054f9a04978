/** How a screen looks and reads: pictures of it, the rules of axe, and what a zoom of 200 % loses. */

import { join } from "node:path";
import axe from "axe-core";
import type { Page } from "playwright-core";
import { expect } from "vitest";
import { SCREENSHOTS } from "./global-setup";

/** Writes a picture of the window to `tests/screenshots/NAME.png`. */
export async function picture(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), animations: "disabled" });
}

/** Fails by every violation of a rule of axe, of all or of those named, with the elements that violate it. */
export async function expectAccessible(page: Page, what: string, rules?: string[]): Promise<void> {
  await page.evaluate(axe.source); // by the debugger's way: the page's policy lets no script in
  const violations = await page.evaluate(async (only) => {
    const found = await (window as unknown as { axe: typeof axe }).axe.run(document, {
      resultTypes: ["violations"],
      ...(only === undefined ? {} : { runOnly: { type: "rule", values: only } }),
    });
    return found.violations.map((one) => ({
      rule: `${one.id}: ${one.help}`,
      elements: one.nodes.slice(0, 5).map((node) => `${node.target.join(" ")} ${node.failureSummary ?? ""}`),
    }));
  }, rules);
  expect(violations, `violations of accessibility: ${what}`).toEqual([]);
}

/** Fails where something is cut off or can only be reached by scrolling sideways. Tables and charts may scroll in themselves. */
export async function expectNothingLost(page: Page, what: string): Promise<void> {
  const lost = await page.evaluate(() => {
    const found: string[] = [];
    const name = (one: Element): string => `${one.tagName.toLowerCase()}.${[...one.classList].join(".")}`;
    const seen = document.documentElement.clientWidth;
    for (const one of [document.documentElement, ...document.querySelectorAll(".main, .navigation, .status-bar")]) {
      if (one.scrollWidth <= one.clientWidth + 1) continue;
      const wide = [...one.querySelectorAll("*")].filter(
        (inner) => inner.getBoundingClientRect().right > seen + 1 && !inner.closest(".table, [data-scrolls], pre"),
      );
      const first = wide
        .slice(0, 3)
        .map((inner) => `${name(inner)} to ${Math.round(inner.getBoundingClientRect().right)}`);
      found.push(`${name(one)} scrolls sideways: ${one.scrollWidth} > ${one.clientWidth}; ${first.join(", ")}`);
    }
    for (const one of document.querySelectorAll("button, a[href], input, select, textarea, h1, h2")) {
      const box = one.getBoundingClientRect();
      if (
        box.width === 0 ||
        box.height === 0 ||
        one.closest(".table, [data-scrolls], pre, .skip-link, .visually-hidden")
      )
        continue;
      if (box.left < -1 || box.right > seen + 1) {
        found.push(
          `${name(one)} "${one.textContent?.slice(0, 40)}" is outside: ${Math.round(box.left)} to ${Math.round(box.right)}`,
        );
      }
    }
    return found;
  });
  expect(lost, `lost at this zoom: ${what}`).toEqual([]);
}
