/** The app in a browser: `test` gives pages to each test, and fails it by any error that they state and it did not foresee. */

import { join } from "node:path";
import { type Client, connect } from "@backtestr/client";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, test as base, expect, inject } from "vitest";
import { SCREENSHOTS } from "./global-setup";
import type { Stage } from "./stage";

const WIDTH = 1440;
const HEIGHT = 900;

export interface OpenOptions {
  readonly theme?: "light" | "dark";
  /** 2 is 200 %: half as many CSS pixels in a window of the same size. */
  readonly zoom?: number;
  readonly width?: number;
  readonly height?: number;
  /** Opens the page of another server, by a link of it, in place of the shared one. */
  readonly stage?: Stage;
  readonly reducedMotion?: boolean;
}

export interface Fixtures {
  /** Opens a page at a hash such as `#/data`, in a browser profile of its own. Does not wait for a connection. */
  open(hash?: string, options?: OpenOptions): Promise<Page>;
  /** Names errors that this test provokes; all others fail it. */
  foresee(...errors: RegExp[]): void;
  /** A client of the shared broker, in Node: another program beside the page. */
  client: Client;
}

let browser: Promise<Browser> | undefined;
let shared: Promise<Client> | undefined;

afterAll(async () => {
  await (await shared)?.close();
  await (await browser)?.close();
});

/** The browser that all tests share. */
export function sharedBrowser(): Promise<Browser> {
  browser ??= chromium.connect(inject("browserEndpoint"));
  return browser;
}

/** A client in Node of the shared broker, one for each file. */
export function sharedClient(): Promise<Client> {
  shared ??= connect({ connectionFile: inject("connectionFile"), timeoutMs: 30_000 });
  return shared;
}

export const test = base.extend<Fixtures & { errors: { stated: string[]; foreseen: RegExp[] } }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the names of what a fixture needs from its pattern
  errors: async ({}, use) => {
    const errors = { stated: [] as string[], foreseen: [] as RegExp[] };
    await use(errors);
    const unforeseen = errors.stated.filter((text) => !errors.foreseen.some((one) => one.test(text)));
    expect(unforeseen, "errors that the pages stated").toEqual([]);
  },
  foresee: async ({ errors }, use) => {
    await use((...patterns) => {
      errors.foreseen.push(...patterns);
    });
  },
  open: async ({ errors, task }, use) => {
    const contexts: BrowserContext[] = [];
    await use(async (hash = "#/data", options = {}) => {
      const context = await newContext(options);
      contexts.push(context);
      watch(context, errors.stated);
      const page = await context.newPage();
      if (options.stage === undefined) await page.goto(`${inject("origin")}/${hash}`);
      else {
        await page.goto(await options.stage.anotherLink());
        await page.evaluate((to) => {
          window.location.hash = to;
        }, hash);
      }
      return page;
    });
    if (task.result?.state === "fail") await picturesOf(contexts, task.name);
    await Promise.all(contexts.map((one) => one.close()));
  },
  // biome-ignore lint/correctness/noEmptyPattern: see above
  client: async ({}, use) => {
    await use(await sharedClient());
  },
});

async function newContext(options: OpenOptions): Promise<BrowserContext> {
  const zoom = options.zoom ?? 1;
  const context = await (await sharedBrowser()).newContext({
    viewport: {
      width: Math.round((options.width ?? WIDTH) / zoom),
      height: Math.round((options.height ?? HEIGHT) / zoom),
    },
    deviceScaleFactor: zoom,
    colorScheme: options.theme ?? "light",
    reducedMotion: options.reducedMotion ? "reduce" : "no-preference",
    acceptDownloads: true,
    ...(options.stage === undefined ? { storageState: inject("admission") } : {}),
  });
  context.setDefaultTimeout(20_000);
  // The browser states a violation of the policy in the console too, but not always by which element.
  await context.addInitScript(() => {
    const warn = console.warn.bind(console);
    console.warn = (...words: unknown[]) => warn(...words, new Error("where it was said").stack);
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
    });
  });
  return context;
}

/** Takes pictures of the pages of a failed test, as `tests/screenshots/failed …`. */
async function picturesOf(contexts: readonly BrowserContext[], name: string): Promise<void> {
  const file = name.replaceAll(/[^a-z0-9]+/gi, "-").slice(0, 60);
  const pages = contexts.flatMap((one) => one.pages());
  const taken = pages.map((page, at) =>
    page.screenshot({ path: join(SCREENSHOTS, `failed-${file}-${at}.png`), timeout: 5_000 }),
  );
  await Promise.allSettled(taken); // the failure itself is what has to be told
}

function watch(context: BrowserContext, stated: string[]): void {
  context.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") {
      stated.push(`${message.type()}: ${message.text()} (${message.location().url})`);
    }
  });
  context.on("weberror", (error) => {
    stated.push(`exception: ${error.error().stack ?? error.error().message}`);
  });
  context.on("requestfailed", (request) => {
    const reason = request.failure()?.errorText ?? "failed";
    if (reason !== "net::ERR_ABORTED") stated.push(`request: ${request.url()} ${reason}`); // those of a page that is left
  });
}

/** Waits until the page is connected and waits for nothing more. */
export async function settled(page: Page): Promise<void> {
  await page.locator(".status-bar").getByText("Connected", { exact: true }).waitFor();
  await page.waitForFunction(() => document.querySelector(".waiting, .main [aria-busy='true']") === null);
  await drawn(page);
}

/** Waits until the page has drawn twice: what was set before is seen then. */
export async function drawn(page: Page): Promise<void> {
  await page.evaluate(
    () => new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(() => next(undefined)))),
  );
}
