import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { PRESETS, RUN_OPTIONS, SECTIONS } from "../../renderer/src/screens/run/conventions";

/** Reads a file of the project; vitest runs in clients/app. */
function projectFile(path: string): string {
  return readFileSync(`${process.cwd()}/../../${path}`, "utf8");
}

function camel(name: string): string {
  return name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
}

/** The options of the section [conventions], with their defaults and the first line of their comment. */
function conventions(): Map<string, { initial: unknown; choices: string[] }> {
  const toml = projectFile("config/engine.toml");
  const found = new Map<string, { initial: unknown; choices: string[] }>();
  let choices: string[] = [];
  for (const line of toml.slice(toml.indexOf("[conventions]")).split("\n")) {
    const listed = /^# ([\w/]+(?: \| [\w/]+)+)\./.exec(line);
    const [, name, value] = /^(\w+) = (.+)$/.exec(line) ?? [];
    if (listed?.[1] !== undefined) choices = listed[1].split(" | ");
    if (name === undefined || value === undefined) continue;
    found.set(camel(name), { initial: JSON.parse(value), choices });
    choices = [];
  }
  return found;
}

test("the form has every convention of config/engine.toml with its default and its choices, and no other", () => {
  const expected = conventions();
  expect(RUN_OPTIONS.map((one) => one.name).sort()).toEqual([...expected.keys()].sort());
  for (const option of RUN_OPTIONS) {
    const { initial, choices } = expected.get(option.name) ?? {};
    expect([option.name, option.initial]).toEqual([option.name, initial]);
    const listed = option.choices?.map(([value]) => value) ?? [];
    const needed = option.kind === "choice" ? choices : [];
    expect([option.name, ...listed]).toEqual([option.name, ...(needed ?? [])]);
    expect(SECTIONS).toContain(option.section);
  }
});

test("the presets are those of the engine", () => {
  const source = projectFile("engine/backtestr_engine/simulation/conventions.py");
  const start = source.indexOf("PRESETS:");
  const block = source.slice(start, source.indexOf("\n}", start));
  const named = [...block.matchAll(/^ {4}"([\w.]+)": \{/gm)].map((match) => match[1]);
  expect(PRESETS.map(([value]) => value).filter((value) => value !== "")).toEqual(named);
});
