// The main process: a window, and a process for the client. Each page that has loaded gets one end of a channel.
import { join } from "node:path";
import { app, BrowserWindow, MessageChannelMain, utilityProcess } from "electron";

app.whenReady().then(() => {
  const client = utilityProcess.fork(join(import.meta.dirname, "client.mjs"));
  const window = new BrowserWindow({ webPreferences: { preload: join(import.meta.dirname, "preload.cjs") } });
  window.webContents.on("did-finish-load", () => {
    const { port1, port2 } = new MessageChannelMain();
    client.postMessage(null, [port1]);
    window.webContents.postMessage("client", null, [port2]);
  });
  window.loadFile("index.html");
});
app.on("window-all-closed", () => app.quit());
