/** Round trips of Ping by the client beside a raw DEALER, in blocks in turn: `node ping.mjs FILE BLOCKS TRIPS`. Prints JSON. */

import { connect } from "@backtestr/client";
import { RawDealer } from "./raw-dealer.mjs";

const [file, blocks, trips] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const raw = new RawDealer(file);
await raw.hello();
const client = await connect({ connectionFile: file });
const kinds = { raw: () => raw.ask("Ping", {}), client: () => client.request("Ping", {}) };
const took = { raw: [], client: [] };
for (let block = -2; block < blocks; block += 1) {
  for (const [name, ping] of Object.entries(kinds)) {
    const ms = new Float64Array(trips);
    for (let trip = 0; trip < trips; trip += 1) {
      const began = performance.now();
      await ping();
      ms[trip] = performance.now() - began;
    }
    ms.sort();
    // The first blocks are for warming up.
    if (block >= 0) took[name].push({ p50: ms[Math.floor(trips / 2)], p99: ms[Math.floor(trips * 0.99)] });
  }
}
raw.close();
await client.close();
console.log(JSON.stringify(took));
