/** The part of Electron that the app uses, made here: it notes what it is told, and says what a test has it say. */

import { EventEmitter } from "node:events";
import type { BrowserWindowConstructorOptions, MenuItemConstructorOptions } from "electron";

type Answering = (...args: never[]) => unknown;

class Window extends EventEmitter {
  readonly options: BrowserWindowConstructorOptions;
  readonly sent: unknown[][] = [];
  loaded: string | undefined;
  focused = 0;
  reloaded = 0;
  readonly webContents = {
    send: (...args: unknown[]) => this.sent.push(args),
    reload: () => {
      this.reloaded += 1;
    },
  };

  constructor(options: BrowserWindowConstructorOptions) {
    super();
    this.options = options;
  }
  async loadURL(address: string): Promise<void> {
    this.loaded = address;
  }
  isMinimized(): boolean {
    return false;
  }
  focus(): void {
    this.focused += 1;
  }
  show(): void {
    this.emit("shown");
  }
}

class Forked extends EventEmitter {
  killed = 0;
  readonly posted: unknown[] = [];
  postMessage(...args: unknown[]): void {
    this.posted.push(args);
  }
  kill(): boolean {
    this.killed += 1;
    return true;
  }
}

class App extends EventEmitter {
  isPackaged = false;
  isSandboxed = false;
  readonly #electron: FakeElectron;
  readonly #home: string;

  constructor(electron: FakeElectron, home: string) {
    super();
    this.#electron = electron;
    this.#home = home;
  }
  requestSingleInstanceLock(): boolean {
    return this.#electron.isFirst;
  }
  async whenReady(): Promise<void> {
    // it is
  }
  enableSandbox(): void {
    this.isSandboxed = true;
  }
  getPath(): string {
    return this.#home;
  }
  /** Quits as Electron does: whoever listens may prevent it. */
  quit(): void {
    let isPrevented = false;
    this.emit("before-quit", {
      preventDefault: () => {
        isPrevented = true;
      },
    });
    if (!isPrevented) this.#electron.hasQuit = true;
  }
}

class IpcMain extends EventEmitter {
  readonly #handlers = new Map<string, Answering>();
  handle(channel: string, answer: Answering): void {
    this.#handlers.set(channel, answer);
  }
  async invoke(channel: string, ...args: unknown[]): Promise<unknown> {
    return this.#handlers.get(channel)?.(...(args as never[]));
  }
}

class Session extends EventEmitter {
  permissionRequest: ((...args: unknown[]) => void) | undefined;
  permissionCheck: ((...args: unknown[]) => boolean) | undefined;
  devicePermission: (() => boolean) | undefined;
  beforeRequest: ((details: { url: string }, answer: (answer: { cancel: boolean }) => void) => void) | undefined;
  readonly webRequest = {
    onBeforeRequest: (listener: typeof this.beforeRequest) => {
      this.beforeRequest = listener;
    },
  };
  setPermissionRequestHandler(handler: typeof this.permissionRequest): void {
    this.permissionRequest = handler;
  }
  setPermissionCheckHandler(handler: typeof this.permissionCheck): void {
    this.permissionCheck = handler;
  }
  setDevicePermissionHandler(handler: typeof this.devicePermission): void {
    this.devicePermission = handler;
  }
}

/** One Electron for one test. */
export class FakeElectron {
  isFirst = true;
  hasQuit = false;
  readonly windows: Window[] = [];
  readonly forked: Forked[] = [];
  readonly menus: MenuItemConstructorOptions[][] = [];
  readonly exposed: { [name: string]: unknown } = {};
  readonly invoked: unknown[][] = [];
  readonly handedOn: unknown[][] = [];
  readonly questions: unknown[] = [];
  answer = { response: 0, checkboxChecked: false };
  chosen = { canceled: true, filePath: "" };

  readonly app: App;
  readonly ipcMain = new IpcMain();
  readonly session = { defaultSession: new Session() };
  readonly protocol = {
    privileged: [] as unknown[],
    handlers: {} as { [scheme: string]: (request: { url: string; method: string }) => unknown },
    registerSchemesAsPrivileged: (schemes: unknown[]) => this.protocol.privileged.push(...schemes),
    handle: (scheme: string, handler: (request: { url: string; method: string }) => unknown) => {
      this.protocol.handlers[scheme] = handler;
    },
  };
  readonly Menu = {
    buildFromTemplate: (template: MenuItemConstructorOptions[]) => template,
    setApplicationMenu: (menu: MenuItemConstructorOptions[]) => this.menus.push(menu),
  };
  readonly dialog = {
    showMessageBox: async (...args: unknown[]) => {
      this.questions.push(args.at(-1));
      return this.answer;
    },
    showSaveDialog: async () => this.chosen,
    showErrorBox: (...args: unknown[]) => this.questions.push(args),
  };
  readonly utilityProcess = {
    fork: () => {
      const forked = new Forked();
      this.forked.push(forked);
      return forked;
    },
  };
  readonly contextBridge = {
    exposeInMainWorld: (name: string, what: unknown) => {
      this.exposed[name] = what;
    },
  };
  readonly ipcRenderer = Object.assign(new EventEmitter(), {
    invoke: async (...args: unknown[]) => {
      this.invoked.push(args);
    },
    postMessage: (...args: unknown[]) => this.handedOn.push(args),
  });
  readonly webUtils = { getPathForFile: (file: File) => `/home/me/${file.name}` };

  constructor(home: string) {
    this.app = new App(this, home);
  }

  newWindow(options: BrowserWindowConstructorOptions): Window {
    const window = new Window(options);
    this.windows.push(window);
    return window;
  }

  /** Finds an item of the menu by its label. */
  menuItem(label: string): { click?: () => void } | undefined {
    const search = (items: readonly MenuItemConstructorOptions[]): MenuItemConstructorOptions | undefined => {
      for (const item of items) {
        const below = Array.isArray(item.submenu) ? search(item.submenu) : undefined;
        if (item.label === label || below !== undefined) return below ?? item;
      }
      return undefined;
    };
    return search(this.menus.at(-1) ?? []) as { click?: () => void } | undefined;
  }
}

/** Returns a module `electron` that stands for the Electron of the present test. */
export function standingFor(current: () => FakeElectron): object {
  const part = (name: string): object =>
    new Proxy(
      {},
      {
        get: (_target, key) => {
          const whole = Reflect.get(current(), name) as object;
          const found: unknown = Reflect.get(whole, key);
          return typeof found === "function" ? found.bind(whole) : found;
        },
      },
    );
  const names = ["app", "dialog", "ipcMain", "Menu", "protocol", "session", "utilityProcess"];
  const ofPages = ["contextBridge", "ipcRenderer", "webUtils"];
  return {
    ...Object.fromEntries([...names, ...ofPages].map((name) => [name, part(name)])),
    BrowserWindow: class {
      constructor(options: BrowserWindowConstructorOptions) {
        // biome-ignore lint/correctness/noConstructorReturn: it stands for the window that the test has made
        return current().newWindow(options);
      }
    },
  };
}
