import { defineConfig } from "vitest/config";

// `npm run test:browser`: the page that `backtestr ui` serves, in a real browser, before a real broker.
export default defineConfig({
  test: {
    include: ["tests/browser/**/*.test.ts"],
    globalSetup: "tests/browser/support/global-setup.ts",
    // Whatever takes longer than this hangs, also on a busy machine.
    testTimeout: 60_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 20_000, interval: 50 } },
    // The files share one broker, one browser and two cores.
    maxWorkers: 1,
    passWithNoTests: false,
  },
});
