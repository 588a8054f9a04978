import { createResource, For, type JSX, Show } from "solid-js";
import { count } from "../../format/numbers";
import { type FileLine, linesAround, partOf, type Refusal, textOf } from "./refused-rows";

/** The refused places of a file with the lines around them; of a table, which has no lines, the places alone. */
export function RefusedRows(props: { readonly file: File; readonly refusal: Refusal }): JSX.Element {
  const [lines] = createResource(
    () => props.refusal,
    async (refusal) => {
      const text = refusal.isTable ? undefined : textOf(props.file);
      return text === undefined ? [] : linesAround(text, refusal.places);
    },
  );
  return (
    <Show when={lines.state === "ready" && lines().length > 0 ? lines() : undefined} fallback={<Places {...props} />}>
      {(found) => <Lines lines={found()} />}
    </Show>
  );
}

function Places(props: { readonly refusal: Refusal }): JSX.Element {
  return (
    <ul class="error-advice small">
      <For each={props.refusal.places}>
        {(place) => (
          <li>
            {props.refusal.isTable ? "Row" : "Line"} {count(place.line)}, column <code>{place.column}</code>
            {place.text === undefined ? "" : `, ${JSON.stringify(place.text)}`}: {place.reason}
          </li>
        )}
      </For>
    </ul>
  );
}

function Lines(props: { readonly lines: readonly FileLine[] }): JSX.Element {
  const header = (): string => props.lines[0]?.text ?? "";
  const follows = (at: number): boolean =>
    at === 0 || props.lines[at - 1]?.number === (props.lines[at]?.number ?? 0) - 1;
  return (
    <div class="file-lines" tabindex={0} role="group" aria-label="The refused lines of the file with those around them">
      <For each={props.lines}>
        {(line, at) => (
          <>
            <Show when={!follows(at())}>
              <div class="file-line gap" aria-hidden="true">
                <span class="file-number">⋮</span>
              </div>
            </Show>
            <div class="file-line" classList={{ refused: line.places.length > 0 }}>
              <span class="file-number">{line.number}</span>
              <Marked line={line} header={header()} />
            </div>
            <For each={line.places}>
              {(place) => (
                <div class="file-reason">
                  <span class="file-number" aria-hidden="true">
                    ▲
                  </span>
                  <span>
                    column <code>{place.column}</code>: {place.reason}
                  </span>
                </div>
              )}
            </For>
          </>
        )}
      </For>
    </div>
  );
}

function Marked(props: { readonly line: FileLine; readonly header: string }): JSX.Element {
  const part = (): readonly [number, number] | undefined => {
    const place = props.line.places[0];
    return place === undefined ? undefined : partOf(props.line.text, props.header, place);
  };
  return (
    <Show when={part()} fallback={<span>{props.line.text}</span>}>
      {(found) => (
        <span>
          {props.line.text.slice(0, found()[0])}
          <mark>{props.line.text.slice(...found()) || " "}</mark>
          {props.line.text.slice(found()[1])}
        </span>
      )}
    </Show>
  );
}
