/** The result of a long backtest as typed arrays, after it has completed: `node result.mjs FILE ROUNDS`. Prints JSON. */

import { connect } from "@backtestr/client";

const [file, rounds] = [process.argv[2], Number(process.argv[3])];
const client = await connect({ connectionFile: file });
const found = [];
for (let round = -1; round < rounds; round += 1) {
  const run = await client.backtest({
    algorithm: "sma_cross",
    symbol: "SYNTH",
    timeframe: "1m",
    start: "2024-01-01",
    end: "2100-01-01",
    parameters: { fast: 10, slow: 30 },
    watch: [],
  });
  await run.wait();
  const began = performance.now();
  const { equity, trades, orders, positions } = await run.result();
  const ms = performance.now() - began;
  const sum = [equity, trades, orders, positions].reduce((rows, table) => rows + table.rows, 0);
  if (round >= 0) found.push({ ms, bars: equity.rows, rows: sum });
}
await client.close();
console.log(JSON.stringify(found));
