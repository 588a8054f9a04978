// The utility process: it holds the keys and the sockets, and decodes; a client for each page.
import { connect } from "@backtestr/client";
import { serveClient } from "@backtestr/client/worker";

process.parentPort.on("message", async ({ ports: [port] }) => {
  const client = await connect({ waitForBroker: false });
  await serveClient(port, client, { transfer: false }); // Electron copies buffers: it hands none over
});
