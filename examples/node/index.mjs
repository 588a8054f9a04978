// A backtest from Node with the client:  npm install && node index.mjs   (needs a broker: make run-broker; README.md)
import { connect } from "@backtestr/client";

const client = await connect();
try {
  const run = await client.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1m", commission: 0.0005 });
  for await (const { progressPercent } of run.progress()) console.log(`${progressPercent.toFixed(1)} %`);
  const { metrics, equity, trades } = await run.result();
  console.log(`${trades.rows} trades; the equity ended at ${equity.columns.equity.at(-1).toFixed(2)}`);
  console.log(JSON.stringify(metrics, null, 2));
} catch (error) {
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = 1;
}
await client.close();
