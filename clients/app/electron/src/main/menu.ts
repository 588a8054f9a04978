/** The app's menu. Pure: no item does anything but call what it is given. */

import type { MenuItemConstructorOptions } from "electron";
import type { OnQuit } from "./settings";

/** The actions of the menu's items. */
export interface MenuActions {
  show(route: string): void;
  startBroker(): void;
  chooseOnQuit(choice: OnQuit): void;
}

/** The facts that the menu shows. */
export interface MenuState {
  readonly platform: NodeJS.Platform;
  readonly isPackaged: boolean;
  readonly onQuit: OnQuit;
}

const SCREENS: readonly (readonly [label: string, route: string])[] = [
  ["Data", "#/data"],
  ["Run", "#/run"],
  ["Runs", "#/runs"],
  ["Algorithms", "#/algorithms"],
  ["Shared state", "#/state"],
  ["Topics", "#/topics"],
];

const ON_QUIT: readonly (readonly [label: string, choice: OnQuit])[] = [
  ["Ask about it", "ask"],
  ["Leave it running", "leave"],
  ["Stop it", "stop"],
];

/** Returns the template of the menu. */
export function menuTemplate(state: MenuState, actions: MenuActions): MenuItemConstructorOptions[] {
  const isMac = state.platform === "darwin";
  const screens = SCREENS.map(
    ([label, route], index): MenuItemConstructorOptions => ({
      label,
      accelerator: `CmdOrCtrl+${index + 1}`,
      click: () => actions.show(route),
    }),
  );
  const onQuit = ON_QUIT.map(
    ([label, choice]): MenuItemConstructorOptions => ({
      label,
      type: "radio",
      checked: state.onQuit === choice,
      click: () => actions.chooseOnQuit(choice),
    }),
  );
  const developer: MenuItemConstructorOptions[] = state.isPackaged
    ? []
    : [{ type: "separator" }, { role: "reload" }, { role: "toggleDevTools" }];
  return [
    ...(isMac ? [{ role: "appMenu" } as const] : []),
    { label: "File", submenu: [isMac ? { role: "close" } : { role: "quit" }] },
    { role: "editMenu" },
    {
      label: "View",
      submenu: [
        ...screens,
        { type: "separator" },
        { role: "resetZoom" },
        { role: "zoomIn" },
        { role: "zoomOut" },
        { role: "togglefullscreen" },
        ...developer,
      ],
    },
    {
      label: "Broker",
      submenu: [
        { label: "Start a broker", click: () => actions.startBroker() },
        { label: "A broker started here, when quitting", submenu: onQuit },
      ],
    },
    { role: "windowMenu" },
  ];
}
