/** The program of the main process. */

import { app } from "electron";
import { DesktopApp, prepare } from "./desktop-app";

if (app.requestSingleInstanceLock()) {
  prepare();
  void app.whenReady().then(() => new DesktopApp().show());
} else {
  app.quit(); // the one that runs shows its window
}
