/** The page about Electron says what is so: its table of security, and its example. */

import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = resolve(import.meta.dirname, "../../../..");
const PAGE = readFileSync(join(ROOT, "docs/electron.md"), "utf8");
const SOURCE = join(import.meta.dirname, "../src");

const rows = PAGE.split("\n")
  .map((line) => /^\| (\d+)\. [^|]+ \| `([^`]+)` \| `([^`]+)` \|/.exec(line))
  .filter((found) => found !== null)
  .map(([, number, file, name]) => ({ number: Number(number), file: file ?? "", name: name ?? "" }));

describe("the table of security", () => {
  it("has the twenty points of Electron's checklist", () => {
    expect(rows.map((one) => one.number)).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  });

  it.each(rows)("$number: $name is in $file", ({ file, name }) => {
    const path = join(SOURCE, file);
    expect(existsSync(path), path).toBe(true);
    expect(readFileSync(path, "utf8")).toContain(name);
  });

  it("is right about what is not there", () => {
    const files = ["main/desktop-app.ts", "main/lock-down.ts", "main/index.ts", "preload/index.ts"];
    const all = files.map((file) => readFileSync(join(SOURCE, file), "utf8")).join("\n");
    expect(all).not.toMatch(/\bshell\b|enableBlinkFeatures|allowpopups|file:\/\//);
  });
});

it.each(["main.mjs", "client.mjs", "preload.cjs", "renderer.mjs"])("the example's %s stands there as it is", (file) => {
  const [, ...lines] = readFileSync(join(ROOT, "examples/electron", file), "utf8")
    .trimEnd()
    .split("\n");
  expect(PAGE).toContain(`\`\`\`js\n${lines.join("\n").trim()}\n\`\`\``);
});
