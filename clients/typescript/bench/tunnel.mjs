/** Round trips of Ping through the tunnel of `backtestr ui` and over ZeroMQ, in blocks in turn: `node tunnel.mjs LINK FILE BLOCKS TRIPS`. Prints JSON. */

import { connect } from "@backtestr/client";
import { connectThrough } from "./browser.mjs";

const [link, file, blocks, trips] = [...process.argv.slice(2, 4), Number(process.argv[4]), Number(process.argv[5])];
const clients = { tunnel: await connectThrough(link), direct: await connect({ connectionFile: file }) };
const took = { tunnel: [], direct: [] };
for (let block = -2; block < blocks; block += 1) {
  for (const [name, client] of Object.entries(clients)) {
    const ms = new Float64Array(trips);
    for (let trip = 0; trip < trips; trip += 1) {
      const began = performance.now();
      await client.request("Ping", {});
      ms[trip] = performance.now() - began;
    }
    ms.sort();
    // The first blocks are for warming up.
    if (block >= 0) took[name].push({ p50: ms[Math.floor(trips / 2)], p99: ms[Math.floor(trips * 0.99)] });
  }
}
for (const client of Object.values(clients)) await client.close();
console.log(JSON.stringify(took));
