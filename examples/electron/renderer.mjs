// The page: a client at the other end of the port.
import { RemoteClient } from "@backtestr/client/page";

window.addEventListener("message", async ({ source, data, ports: [port] }) => {
  if (source !== window || data !== "client") return;
  const client = new RemoteClient(port);
  const { backtestId } = await client.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1d" });
  await client.wait(backtestId);
  const { metrics, tables } = await client.results(backtestId);
  document.body.textContent = `${tables.trades.rows} trades; the equity ended at ${metrics.finalEquity.toFixed(2)}`;
});
