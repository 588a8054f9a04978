// This program runs a backtest from Node with zeromq and msgpackr alone, by protocol/PROTOCOL.md.
//   npm install && node index.mjs [SYMBOL [TIMEFRAME]]        (needs a broker: make run-broker)

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Packr } from "msgpackr";
import { Dealer, Subscriber } from "zeromq";

const [symbol = "SYNTH", timeframe = "1m"] = process.argv.slice(2);

// On systems other than Linux, set BACKTESTR_CONNECTION_FILE to the path that the broker prints when it starts.
const usual = join(process.env.XDG_RUNTIME_DIR || `/tmp/runtime-${process.getuid?.()}`, "backtestr");
const runtime = process.env.BACKTESTR_RUNTIME_DIR || usual;
const file = process.env.BACKTESTR_CONNECTION_FILE || join(runtime, "connection.json");
if (!existsSync(file)) {
  console.error(`no broker is running (there is no ${file}); start one with: make run-broker`);
  process.exit(3);
}
const { signing, endpoints, curve } = JSON.parse(readFileSync(file, "utf8"));
const key = Buffer.from(signing.key, "hex");

// Plain maps instead of msgpackr's records, and integers that fit as numbers instead of BigInt.
const packr = new Packr({ useRecords: false, int64AsType: "auto" });

function sign(label, frames) {
  const hmac = createHmac("sha256", key).update(label);
  for (const frame of frames) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(frame.length);
    hmac.update(length).update(frame);
  }
  return hmac.digest();
}

/** Return the envelope of a message; the signature is verified before anything is decoded. */
function opened(label, signature, frames, envelope) {
  const expected = sign(label, frames);
  if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) {
    throw new Error("a forged message");
  }
  return packr.unpack(envelope);
}

// Over TCP connections are encrypted.
const keys = curve && {
  curveServerKey: curve.serverPublicKey,
  curvePublicKey: curve.clientPublicKey,
  curveSecretKey: curve.clientSecretKey,
};
const dealer = new Dealer({ linger: 0, ...keys });
const progress = new Subscriber({ linger: 0, ...keys });
let session = {};
let counter = 0;

/** Send a request and wait for its answer; this example needs only one request at a time. */
async function request(type, data) {
  const envelope = packr.pack({
    id: randomUUID(),
    timestamp: Date.now(),
    schemaVersion: 1,
    messageType: "Request",
    payload: { type, data },
    counter: ++counter,
    ...session,
  });
  await dealer.send([sign("req", [envelope]), envelope]);
  const [signature, ...frames] = await dealer.receive();
  const { payload } = opened("rep", signature, frames, frames[0]);
  if (payload.type !== "Success") throw new Error(payload.data.message);
  return payload.data;
}

function percents(payload) {
  const batch = payload.type === "Batch" ? payload.data.messages : [payload];
  return batch.map((one) => `${one.data.progressPercent.toFixed(1)} %`);
}

async function showProgress() {
  for await (const [topic, signature, envelope] of progress) {
    console.log(...percents(opened("pub", signature, [topic, envelope], envelope).payload));
  }
}

try {
  const backtestId = randomUUID();
  const topic = `progress.${backtestId}`;
  dealer.connect(endpoints.requests);
  progress.connect(endpoints.progress);
  progress.subscribe(topic);
  const { sessionId } = await request("Hello", { clientId: `node-${backtestId}`, protocolVersions: [1] });
  session = { sessionId };
  const showing = showProgress();

  await request("StartBacktest", {
    backtestId,
    algorithmId: "sma_cross",
    symbol,
    timeframe,
    startDate: "2000-01-01",
    endDate: "2040-01-01",
    initialCapital: 100000,
    commission: 0.0005,
    slippage: 0,
    parameters: { fast: 10, slow: 30 },
  });
  const underWay = new Set(["queued", "running"]);
  while (underWay.has((await request("GetBacktestStatus", { backtestId })).status)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { messages } = await request("FetchMissed", { topic, fromSeq: 1 });
  console.log(`${messages.length} progress messages, the last at`, percents(messages.at(-1).payload).at(-1));
  const { metrics } = await request("GetBacktestResults", { backtestId });
  console.log(JSON.stringify(metrics, null, 2));

  progress.close();
  await showing;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  progress.close();
  dealer.close();
}
