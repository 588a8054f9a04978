import { defineConfig } from "tsdown";

/** What a program imports; everything in `dependencies` stays outside of the bundles. */
export default defineConfig({
  entry: ["src/index.ts", "src/page.ts", "src/arrow.ts", "src/worker.ts", "src/worker-thread.ts"],
  format: ["esm", "cjs"],
  platform: "neutral",
  target: "node20",
  dts: true,
  clean: true,
  outDir: "dist",
});
