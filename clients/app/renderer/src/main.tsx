import { render } from "solid-js/web";
import { AppShell } from "./app";
import "./design/tokens.css";
import "./design/base.css";
import { startTheme } from "./design/theme";
import { createHost } from "./host/create-host";

startTheme();
const root = document.getElementById("app");
if (root !== null) {
  const host = createHost();
  render(() => <AppShell host={host} />, root);
}
