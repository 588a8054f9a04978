/** The app in Electron: its window, its menu, its dialogs, the process of its client, and the broker that it may start. */

import { existsSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { app, BrowserWindow, dialog, ipcMain, Menu, protocol, session, utilityProcess } from "electron";
import { CHANNELS } from "../channels";
import { brokerCommand, type Machine } from "./broker-command";
import { BrokerKeeper } from "./broker-keeper";
import { BrokerProcess } from "./broker-process";
import { ClientProcess } from "./client-process";
import { askAboutBroker, chooseFile } from "./dialogs";
import { lockDownContents, lockDownSession, servePage, webPreferences } from "./lock-down";
import { menuTemplate } from "./menu";
import { PAGE, SCHEME } from "./page-address";
import { answerRequests } from "./requests";
import { type OnQuit, SettingsFile } from "./settings";

/** The folders of what was built, beside that of this program. */
const BUILT = join(import.meta.dirname, "..");
/** The checkout, as seen from `clients/app/electron/out`. */
const CHECKOUT = join(BUILT, "../../../..");

/** Must be called before Electron is ready. */
export function prepare(): void {
  app.enableSandbox();
  protocol.registerSchemesAsPrivileged([
    { scheme: SCHEME, privileges: { standard: true, secure: true, supportFetchAPI: true } },
  ]);
  app.on("web-contents-created", (_event, contents) => lockDownContents(contents));
}

/** The app, once Electron is ready. */
export class DesktopApp {
  readonly #settings = new SettingsFile(join(app.getPath("userData"), "settings.json"));
  readonly #client: ClientProcess;
  readonly #keeper: BrokerKeeper;
  #window: BrowserWindow | undefined;
  #mayQuit = false;

  constructor() {
    lockDownSession(session.defaultSession);
    servePage(protocol, SCHEME, join(BUILT, "renderer"));
    this.#keeper = new BrokerKeeper({
      command: () => brokerCommand(machine()),
      spawn: (command, ended) => new BrokerProcess(command, join(app.getPath("userData"), "broker.log"), ended),
      isConnected: () => this.#client.isConnected,
      ask: () => this.#ask(),
      onQuit: () => this.#settings.read().onQuit,
      quit: () => this.#quit(),
      after: (milliseconds, due) => {
        const timer = setTimeout(due, milliseconds);
        return () => clearTimeout(timer);
      },
    });
    this.#client = new ClientProcess({
      fork: () => utilityProcess.fork(join(BUILT, "main/client.js"), [], { serviceName: "backtestr client" }),
      now: () => performance.now(),
      connection: (isConnected) => {
        if (isConnected) this.#keeper.connected();
      },
      restarted: () => this.#window?.webContents.reload(),
      failed: (code) => {
        dialog.showErrorBox("backtestr", `The process of the client has failed again and again (exit code ${code}).`);
      },
    });
    answerRequests(ipcMain, {
      brokerMayBeStarted: () => brokerCommand(machine()) !== null,
      startBroker: () => this.#keeper.start(),
      chooseFile: (name) => chooseFile(dialog, this.#window, name),
      serveClient: (port) => this.#client.serve(port),
    });
    this.#setMenu();
    app.on("before-quit", (event) => this.#beforeQuit(event));
    app.on("window-all-closed", () => {
      if (process.platform !== "darwin") app.quit();
    });
    app.on("activate", () => this.show());
    app.on("second-instance", () => this.show());
  }

  /** Shows the window, and makes it where there is none. */
  show(): void {
    if (this.#window !== undefined) {
      if (this.#window.isMinimized()) this.#window.restore();
      this.#window.focus();
      return;
    }
    const window = new BrowserWindow({
      title: "backtestr",
      width: 1280,
      height: 860,
      minWidth: 480,
      minHeight: 400,
      show: false,
      webPreferences: webPreferences(join(BUILT, "preload/index.cjs"), app.isPackaged),
    });
    this.#window = window;
    window.once("ready-to-show", () => window.show());
    window.once("closed", () => {
      this.#window = undefined;
    });
    void window.loadURL(PAGE);
  }

  #setMenu(): void {
    const { onQuit } = this.#settings.read();
    const state = { platform: process.platform, isPackaged: app.isPackaged, onQuit };
    const template = menuTemplate(state, {
      show: (route) => {
        this.show();
        this.#window?.webContents.send(CHANNELS.route, route);
      },
      startBroker: () => void this.#startFromMenu(),
      chooseOnQuit: (choice) => this.#remember(choice),
    });
    Menu.setApplicationMenu(Menu.buildFromTemplate(template));
  }

  async #startFromMenu(): Promise<void> {
    const answer = await this.#keeper.start();
    if ("error" in answer) dialog.showErrorBox("backtestr", answer.error.message);
  }

  #remember(onQuit: OnQuit): void {
    this.#settings.write({ onQuit });
    this.#setMenu();
  }

  async #ask(): Promise<Exclude<OnQuit, "ask"> | null> {
    const { choice, isRemembered } = await askAboutBroker(dialog, this.#window);
    if (isRemembered && choice !== null) this.#remember(choice);
    if (choice === null) this.show(); // its last window may have been closed
    return choice;
  }

  #beforeQuit(event: { preventDefault(): void }): void {
    if (this.#mayQuit) return;
    event.preventDefault();
    void this.#keeper.quitAsked();
  }

  #quit(): void {
    this.#mayQuit = true;
    this.#client.end();
    app.quit();
  }
}

function machine(): Machine {
  return {
    platform: process.platform,
    env: process.env,
    home: homedir(),
    checkout: app.isPackaged ? null : CHECKOUT,
    exists: existsSync,
    realpath: realpathSync,
  };
}
