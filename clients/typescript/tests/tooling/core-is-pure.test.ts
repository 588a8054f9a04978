/** The rules that keep Node and the page out of core/ are tried on a core that breaks them. */

import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const PACKAGE = resolve(import.meta.dirname, "../..");
let home: string;

async function tool(name: string, ...args: string[]): Promise<string> {
  const program = join(PACKAGE, "node_modules", ".bin", name);
  try {
    const { stdout, stderr } = await promisify(execFile)(program, args, { cwd: home });
    return stdout + stderr;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    return `failed: ${stdout}${stderr}`;
  }
}

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "core-is-pure-"));
  await mkdir(join(home, "src/core"), { recursive: true });
  for (const one of ["package.json", "biome.json", "tsconfig.json", "src/core/tsconfig.json"]) {
    await cp(join(PACKAGE, one), join(home, one));
  }
  await symlink(join(PACKAGE, "node_modules"), join(home, "node_modules"));
});

afterAll(() => rm(home, { recursive: true, force: true }));

/** Returns what biome and tsc say about a core of this one module. */
async function verdicts(source: string): Promise<{ lint: string; types: string }> {
  await writeFile(join(home, "src/core/one.ts"), source);
  const lint = await tool("biome", "lint", "src/core/one.ts");
  return { lint, types: await tool("tsc", "--noEmit", "-p", "src/core") };
}

describe("core/", () => {
  it("passes when it does no I/O", async () => {
    const { lint, types } = await verdicts("export const double = (n: number): number => 2 * n;\n");
    expect(lint).not.toMatch(/^failed/);
    expect(types).not.toMatch(/^failed/);
  });

  it.each([
    ["a clock", "export const now = (): number => Date.now();\n", /Date/],
    ["a timer", "export const wait = (): unknown => setTimeout(() => 1, 5);\n", /setTimeout/],
    ["the process", "export const env = (): unknown => process.env;\n", /process/],
    ["Buffer", "export const empty = (): unknown => Buffer.alloc(0);\n", /Buffer/],
    ["the page", "export const page = (): unknown => document.body;\n", /document/],
    [
      "a module of Node",
      'import { readFileSync } from "node:fs";\nexport const read = readFileSync;\n',
      /node:|no I\/O/,
    ],
    ["zeromq", 'import { Dealer } from "zeromq";\nexport const dealer = Dealer;\n', /zeromq|no I\/O/],
    ["a transport", 'import { zmq } from "../transports/zmq.js";\nexport const link = zmq;\n', /imports itself/],
  ])("fails at %s", async (_what, source, said) => {
    const { lint } = await verdicts(source);
    expect(lint).toMatch(/^failed/);
    expect(lint).toMatch(said);
  });

  it("knows no types of Node or of a page", async () => {
    const { types } = await verdicts("export const found = [Buffer, window];\n");
    expect(types).toMatch(/^failed/);
    expect(types).toMatch(/Buffer/);
    expect(types).toMatch(/window/);
  });
});
