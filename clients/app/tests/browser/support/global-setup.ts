/** Starts what all files of tests share: one browser, one broker, and one server of the page with a cookie that lets in. */

import { mkdirSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { chromium } from "playwright-core";
import type { TestProject } from "vitest/node";
import { servedCopy } from "./built-page";
import { chromiumPath, FLAGS } from "./chromium";
import { Stage } from "./stage";

/** The cookies of a browser that was let in. */
export type Admission = Awaited<ReturnType<Awaited<ReturnType<typeof browserContext>>["storageState"]>>;

declare module "vitest" {
  export interface ProvidedContext {
    browserEndpoint: string;
    servedCopy: string;
    origin: string;
    admission: Admission;
    connectionFile: string;
    brokerPid: number;
  }
}

export const SCREENSHOTS = resolve(import.meta.dirname, "../../screenshots");

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const endings: (() => unknown)[] = [];
  const end = async (): Promise<void> => {
    for (const one of endings.splice(0).reverse()) await one();
  };
  try {
    const browser = await chromium.launchServer({ executablePath: chromiumPath(), headless: true, args: FLAGS });
    endings.push(() => browser.close());
    const copy = servedCopy();
    endings.push(() => rmSync(copy, { recursive: true, force: true }));
    mkdirSync(SCREENSHOTS, { recursive: true });
    const stage = await Stage.started(copy);
    endings.push(() => stage.stop());
    const link = await stage.link();
    const context = await browserContext(browser.wsEndpoint(), endings);
    const page = await context.newPage();
    await page.goto(link);
    const { origin } = new URL(page.url());
    const admission = await context.storageState();
    await context.close();
    project.provide("browserEndpoint", browser.wsEndpoint());
    project.provide("servedCopy", copy);
    project.provide("origin", origin);
    project.provide("admission", admission);
    project.provide("connectionFile", stage.broker.connectionFile);
    project.provide("brokerPid", stage.broker.pid);
  } catch (error) {
    await end();
    throw error;
  }
  return end;
}

async function browserContext(endpoint: string, endings: (() => unknown)[]) {
  const browser = await chromium.connect(endpoint);
  endings.push(() => browser.close());
  return browser.newContext();
}
