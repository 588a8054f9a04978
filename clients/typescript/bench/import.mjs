/** The time to import the package in a fresh process: `node import.mjs`. Prints milliseconds. */

const began = performance.now();
await import("@backtestr/client");
console.log(performance.now() - began);
