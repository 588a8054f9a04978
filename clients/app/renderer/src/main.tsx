import { render } from "solid-js/web";

const root = document.getElementById("app");
if (root !== null) render(() => <h1>backtestr</h1>, root);
