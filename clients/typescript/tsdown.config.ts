import { defineConfig } from "tsdown";

/** What a program imports, as ESM and as CJS. What is in `dependencies` stays outside of the bundles. */
export default defineConfig({
  entry: ["src/index.ts", "src/page.ts", "src/arrow.ts", "src/worker.ts", "src/worker-thread.ts"],
  format: ["esm", "cjs"],
  platform: "node",
  target: "node20",
  dts: true,
  clean: true,
  shims: true,
  outDir: "dist",
  logLevel: "error",
});
