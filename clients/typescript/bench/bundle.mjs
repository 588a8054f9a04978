/**
 * The sizes of what a page loads, bundled, minified and packed with gzip: `node bundle.mjs`. Prints JSON in bytes.
 *
 * `core` is every module of core/; `page` is all of `@backtestr/client/page`, with decompression, tables and transports.
 */

import { readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const src = new URL("../src/", import.meta.url).pathname;
const modules = readdirSync(`${src}core`).filter((name) => name.endsWith(".ts"));
const ENTRIES = {
  core: modules.map((name, index) => `export * as part${index} from "${src}core/${name}";`).join("\n"),
  page: `export * from "${src}page.ts";`,
};

const sizes = {};
for (const [name, source] of Object.entries(ENTRIES)) {
  const entry = "virtual:entry";
  const [{ output }] = [
    await build({
      configFile: false,
      logLevel: "silent",
      plugins: [
        { name: "entry", resolveId: (id) => (id === entry ? id : null), load: (id) => (id === entry ? source : null) },
      ],
      build: { write: false, minify: true, rollupOptions: { input: entry, preserveEntrySignatures: "strict" } },
    }),
  ].flat();
  const code = output.map((one) => one.code ?? "").join("");
  sizes[name] = { bytes: code.length, gz: gzipSync(code, { level: 9 }).length };
}
console.log(JSON.stringify(sizes));
