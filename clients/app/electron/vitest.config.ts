import { join } from "node:path";
import { defineConfig } from "vitest/config";

// The example stands outside of this package, and has installed nothing of its own.
const client = join(import.meta.dirname, "../../typescript/dist");

export default defineConfig({
  resolve: {
    alias: [
      { find: /^@backtestr\/client$/, replacement: join(client, "index.mjs") },
      { find: /^@backtestr\/client\/(page|worker)$/, replacement: join(client, "$1.mjs") },
      { find: /^electron$/, replacement: join(import.meta.dirname, "node_modules/electron/index.js") },
    ],
  },
  test: { include: ["tests/**/*.test.ts"], testTimeout: 60_000, hookTimeout: 120_000, maxWorkers: 2 },
});
