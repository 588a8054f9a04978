// The preload: it hands the port to its page, and gives it nothing else.
const { ipcRenderer } = require("electron");

ipcRenderer.on("client", ({ ports }) => window.postMessage("client", "*", ports));
