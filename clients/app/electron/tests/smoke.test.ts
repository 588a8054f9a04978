/**
 * The app in a real Electron: it runs where `BACKTESTR_ELECTRON` names a binary, after `npm run build`.
 *
 * The machines that backtestr is built on have none, so there this says that it did not run.
 */

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { _electron, type ElectronApplication } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Broker } from "../../../typescript/tests/support/broker";

const binary = process.env.BACKTESTR_ELECTRON ?? "";
const isThere = binary !== "" && existsSync(binary);
const why = binary === "" ? "BACKTESTR_ELECTRON names no Electron" : `there is no ${binary}`;
const folder = resolve(import.meta.dirname, "..");

if (!isThere) console.warn(`SKIPPED: the app was not tried in Electron, since ${why}`);

describe.skipIf(!isThere)(isThere ? "in Electron" : `in Electron (skipped: ${why})`, () => {
  let broker: Broker;
  let app: ElectronApplication;
  let home: string;

  beforeAll(async () => {
    broker = await Broker.started();
    home = mkdtempSync(join(tmpdir(), "bt-smoke-"));
    const args = [folder, `--user-data-dir=${home}`, ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])];
    const env = { ...broker.environment, PATH: process.env.PATH } as { [name: string]: string };
    app = await _electron.launch({ executablePath: binary, args, cwd: folder, env });
  });

  afterAll(async () => {
    await app?.close();
    await broker?.stop();
    rmSync(home, { recursive: true, force: true });
  });

  it("shows the page, which reaches the broker and nothing of Node", async () => {
    const page = await app.firstWindow();
    await page
      .getByText(/connected/i)
      .first()
      .waitFor({ timeout: 30_000 });
    expect(new URL(page.url()).origin).toBe("app://backtestr");
    const globals = await page.evaluate(() => ({
      bridge: Object.keys((window as unknown as { backtestr: object }).backtestr).sort(),
      node: [typeof Reflect.get(globalThis, "require"), typeof Reflect.get(globalThis, "process")],
    }));
    expect(globals).toEqual({
      bridge: ["onRoute", "pathOf", "save", "session", "startBroker"],
      node: ["undefined", "undefined"],
    });
    await expect(page.evaluate(() => fetch("https://example.org/"))).rejects.toThrow();
  });

  it("gives the page columns of prices, and leaves a broker alone that it has not started", async () => {
    const page = await app.firstWindow();
    await page.evaluate(() => {
      location.hash = "#/data/SYNTH/1d";
    });
    await page.getByText("SYNTH").first().waitFor({ timeout: 30_000 });
    await app.close();
    expect(broker.isRunning).toBe(true);
  });
});
