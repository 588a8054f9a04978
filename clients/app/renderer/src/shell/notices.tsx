import { For, type JSX, Show } from "solid-js";
import { useApp } from "../app-context";
import { Button } from "../components/button";
import "./notices.css";

/** The notices, at the lower edge of the page. They take no focus; Tab reaches their buttons. */
export function Notices(): JSX.Element {
  const { notices } = useApp();
  return (
    <section class="notices" aria-label="Notices" aria-live="polite">
      <For each={notices.shown()}>
        {(notice) => (
          <div class="notice" classList={{ error: notice.kind === "error" }}>
            <span>{notice.text}</span>
            <Show when={notice.action}>
              {(action) => (
                <Button
                  onClick={() => {
                    notices.dismiss(notice.id);
                    action().run();
                  }}
                >
                  {action().label}
                </Button>
              )}
            </Show>
            <Button kind="quiet" aria-label="Dismiss" onClick={() => notices.dismiss(notice.id)}>
              ✕
            </Button>
          </div>
        )}
      </For>
    </section>
  );
}
