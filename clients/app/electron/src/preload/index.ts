/**
 * The preload of the app's window: these five functions, and the port of the client, are all that the page has of
 * Electron.
 */

import { contextBridge, ipcRenderer, webUtils } from "electron";
import { CLIENT_PORT, type ElectronBridge } from "../../../renderer/src/host/electron-bridge";
import { CHANNELS } from "../channels";

const bridge: ElectronBridge = {
  session: () => ipcRenderer.invoke(CHANNELS.session),
  startBroker: () => ipcRenderer.invoke(CHANNELS.startBroker),
  pathOf: (file) => webUtils.getPathForFile(file),
  save: (name, bytes) => ipcRenderer.invoke(CHANNELS.save, name, bytes),
  onRoute: (listener) => {
    ipcRenderer.on(CHANNELS.route, (_event, route: string) => listener(route));
  },
};

contextBridge.exposeInMainWorld("backtestr", bridge);

// Ports do not pass the bridge; the page posts one to its own window, which this hears too.
window.addEventListener("message", ({ data, origin, ports }) => {
  const [port] = ports;
  if (data === CLIENT_PORT && origin === location.origin && port !== undefined) {
    ipcRenderer.postMessage(CHANNELS.client, null, [port]);
  }
});
