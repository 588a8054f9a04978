import { defineConfig } from "vite";
import solid from "vite-plugin-solid";

// `backtestr ui` serves this folder, and the wheel carries it.
const PAGE = "../python/backtestr/ui/page";

export default defineConfig({
  root: "renderer",
  base: "./",
  plugins: [solid()],
  worker: { format: "es" },
  build: {
    outDir: `../${PAGE}`,
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome125", "firefox128", "safari17.5"], // they know light-dark() and popovers
    modulePreload: { polyfill: false }, // all of them preload modules
    assetsInlineLimit: 0,
    sourcemap: false,
    // What the bundle is made of has licences whose texts go with it.
    license: { fileName: "assets/licenses.md" },
  },
});
