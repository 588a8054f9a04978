/** The size of the client for a page, bundled, minified and packed with gzip: `node bundle.mjs`. Prints JSON in bytes. */

import { gzipSync } from "node:zlib";
import { build } from "vite";

const sizes = {};
for (const name of ["page"]) {
  const [{ output }] = [
    await build({
      configFile: false,
      logLevel: "silent",
      build: {
        write: false,
        minify: true,
        lib: { entry: new URL(`../dist/${name}.mjs`, import.meta.url).pathname, formats: ["es"] },
        rollupOptions: { external: [] },
      },
    }),
  ].flat();
  const code = output.map((one) => one.code ?? "").join("");
  sizes[name] = { bytes: code.length, gz: gzipSync(code, { level: 9 }).length };
}
console.log(JSON.stringify(sizes));
