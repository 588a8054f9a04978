// Vite resolves the imports of the sources, as it does for the tests.
import { runnerImport } from "vite";

await runnerImport("./bench/bench.ts", { logLevel: "error" });
