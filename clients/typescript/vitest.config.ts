import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // A broker starts in 3 to 20 s on a busy machine; whatever takes longer than this hangs.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Each file of tests/integration has a broker of its own: two at a time are what two cores bear.
    maxWorkers: 2,
    passWithNoTests: false,
    coverage: {
      provider: "v8",
      include: ["src/core/**/*.ts"],
      exclude: ["src/core/transport.ts"],
      reporter: ["text-summary", "json-summary"],
      thresholds: { branches: 95 },
    },
  },
});
