import { For, type JSX, Show } from "solid-js";
import { excerpt, type FailedPlace } from "./python-source";

/** The lines of a source at which an error was raised, with the error's words below the last of them. */
export function SourceView(props: {
  readonly source: string | undefined;
  readonly place: FailedPlace;
  readonly fileName: string;
}): JSX.Element {
  const lines = () => (props.source === undefined ? [] : excerpt(props.source, props.place));
  const follows = (at: number): boolean => at === 0 || lines()[at - 1]?.number === (lines()[at]?.number ?? 0) - 1;
  return (
    <Show
      when={lines().length > 0}
      fallback={
        <pre class="source-lines" tabindex={0}>
          {props.place.traceback}
        </pre>
      }
    >
      <div
        class="source-lines"
        tabindex={0}
        role="group"
        aria-label={`The lines of ${props.fileName} at which the error was raised`}
      >
        <For each={lines()}>
          {(line, at) => (
            <>
              <Show when={!follows(at())}>
                <div class="source-line" aria-hidden="true">
                  <span class="source-number">⋮</span>
                </div>
              </Show>
              <div class="source-line" classList={{ failed: line.failed, raised: line.raised }}>
                <span class="source-number">{line.number}</span>
                <span>{line.text || " "}</span>
              </div>
              <Show when={line.raised}>
                <div class="source-words">
                  <span class="source-number" aria-hidden="true">
                    ▲
                  </span>
                  <span>{props.place.words}</span>
                </div>
              </Show>
            </>
          )}
        </For>
      </div>
    </Show>
  );
}
