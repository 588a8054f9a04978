import { defineConfig } from "electron-vite";

// The renderer is the page of `backtestr ui`, which `npm run build` makes beside these.
export default defineConfig({
  main: {
    build: {
      outDir: "out/main",
      // The client is bundled. zeromq, which is native, is not.
      externalizeDeps: true,
      rollupOptions: { input: { index: "src/main/index.ts", client: "src/client/index.ts" } },
    },
  },
  preload: {
    build: {
      outDir: "out/preload",
      // A sandboxed preload is CommonJS, and one file.
      rollupOptions: {
        input: { index: "src/preload/index.ts" },
        output: { format: "cjs", entryFileNames: "index.cjs" },
      },
    },
  },
});
