import type { AlgorithmInfo, AlgorithmProblem } from "@backtestr/client/page";
import { createMemo, createSignal, For, type JSX, Match, onCleanup, onMount, Show, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel, messageOf } from "../../components/error-panel";
import { TextField } from "../../components/field";
import { EmptyState, Waiting } from "../../components/states";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { count } from "../../format/numbers";
import type { Loadable } from "../../stores/loadable";
import { AlgorithmPanel, originWords } from "./algorithm-panel";
import { RegistrationCard } from "./registration-card";
import { registrations } from "./registrations";
import { VerdictMark, verdictWords } from "./verdict";
import "./algorithms-screen.css";

/** The algorithms that workers can run: built in, from the broker's folder, and registered. */
export function AlgorithmsScreen(props: { readonly algorithm?: string | undefined }): JSX.Element {
  const app = useApp();
  const registering = registrations(app);
  const [filter, setFilter] = createSignal("");
  const [dragging, setDragging] = createSignal(false);
  let picker: HTMLInputElement | undefined;

  const all = createMemo((): readonly AlgorithmInfo[] => {
    const state = app.algorithms.state();
    return state.state === "there" ? state.value.algorithms : [];
  });
  const problems = createMemo((): readonly AlgorithmProblem[] => {
    const state = app.algorithms.state();
    return state.state === "there" ? (state.value.problems ?? []) : [];
  });
  const chosen = createMemo(() =>
    all().find((one) => one.name === props.algorithm || one.algorithmId === props.algorithm),
  );

  async function add(files: Iterable<File>): Promise<void> {
    for (const file of files) {
      try {
        await registering.add(file);
      } catch (error) {
        app.notices.show(`${file.name} cannot be read: ${messageOf(error)}`, { kind: "error" });
      }
    }
  }
  // The broker tells nobody of files that have changed in its folder, or were registered by others.
  const look = (): void => {
    if (document.visibilityState === "visible") void app.algorithms.refresh();
  };
  onMount(() => {
    look();
    document.addEventListener("visibilitychange", look);
  });
  onCleanup(() => document.removeEventListener("visibilitychange", look));

  return (
    <section
      class="screen algorithms-screen"
      classList={{ dragging: dragging() }}
      aria-label="Algorithms"
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        setDragging(true);
      }}
      onDragLeave={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setDragging(false);
      }}
      onDrop={(event) => {
        event.preventDefault();
        setDragging(false);
        void add(event.dataTransfer?.files ?? []);
      }}
    >
      <header class="screen-header">
        <h1>Algorithms</h1>
        <Show when={all().length > 0}>
          <span class="muted">{count(all().length)} that workers can run</span>
        </Show>
        <div class="actions">
          <TextField
            label="Filter algorithms"
            hideLabel
            type="search"
            placeholder="Filter"
            value={filter()}
            onInput={setFilter}
          />
          <Button kind="primary" onClick={() => picker?.click()}>
            Register a file
          </Button>
          <input
            ref={picker}
            type="file"
            accept=".py,text/x-python"
            multiple
            hidden
            aria-label="Files of algorithms to register"
            onChange={(event) => {
              void add([...(event.currentTarget.files ?? [])]);
              event.currentTarget.value = "";
            }}
          />
        </div>
      </header>
      <Show when={dragging()}>
        <div class="drop-hint">Drop a Python file that declares an algorithm.</div>
      </Show>
      <For each={registering.all()}>
        {(one) => <RegistrationCard registration={one} chooseAgain={() => picker?.click()} />}
      </For>
      <For each={problems()}>{(problem) => <Problem problem={problem} />}</For>
      <Switch>
        <Match when={at(app.algorithms.state(), "waiting")}>
          {(state) => <Waiting what={state().what} since={state().since} />}
        </Match>
        <Match when={at(app.algorithms.state(), "failed")}>
          {(state) => (
            <ErrorPanel
              error={state().error}
              title="The list of algorithms could not be read"
              actions={[{ label: "Try again", run: () => void app.algorithms.refresh() }]}
            />
          )}
        </Match>
        <Match when={true}>
          <div class="algorithms-columns">
            <div class="panel algorithms-list">
              <List algorithms={all()} filter={filter()} chosen={chosen()} />
            </div>
            <Show when={chosen()} keyed fallback={<NoneChosen named={props.algorithm} />}>
              {(one) => <AlgorithmPanel algorithm={one} />}
            </Show>
          </div>
        </Match>
      </Switch>
    </section>
  );
}

function at<Kind extends Loadable<unknown>["state"]>(
  state: Loadable<unknown>,
  kind: Kind,
): Extract<Loadable<unknown>, { state: Kind }> | undefined {
  return state.state === kind ? (state as Extract<Loadable<unknown>, { state: Kind }>) : undefined;
}

function NoneChosen(props: { readonly named: string | undefined }): JSX.Element {
  return (
    <div class="panel">
      <Show
        when={props.named}
        fallback={
          <EmptyState title="Choose an algorithm">
            <p>Its parameters, versions, look-ahead verdict and last error are shown here.</p>
            <p>To add one of your own, drop its Python file anywhere on this screen, or in a terminal:</p>
            <pre>backtestr register FILE.py</pre>
          </EmptyState>
        }
      >
        {(name) => (
          <EmptyState title={`There is no algorithm ${name()}`}>
            <p>It may have been renamed, or its file could not be loaded. Choose another in the list.</p>
          </EmptyState>
        )}
      </Show>
    </div>
  );
}

function Problem(props: { readonly problem: AlgorithmProblem }): JSX.Element {
  const [first = "", ...rest] = props.problem.message.split("\n");
  return (
    <ErrorPanel
      mild
      error={new Error(first)}
      title={
        props.problem.name === undefined
          ? `A file is not loaded: ${props.problem.file}`
          : `${props.problem.name} is not loaded: ${props.problem.file}`
      }
    >
      <Show when={rest.join("\n").trim()}>
        <pre class="source-lines" tabindex={0}>
          {rest.join("\n").trim()}
        </pre>
      </Show>
    </ErrorPanel>
  );
}

function List(props: {
  readonly algorithms: readonly AlgorithmInfo[];
  readonly filter: string;
  readonly chosen: AlgorithmInfo | undefined;
}): JSX.Element {
  const { go } = useApp();
  const of = (row: number): AlgorithmInfo | undefined => props.algorithms[row];
  const shown = createMemo(() => {
    const words = props.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = props.algorithms.flatMap((one, row) => {
      const text = `${one.name} ${one.description}`.toLowerCase();
      return words.every((word) => text.includes(word)) ? [row] : [];
    });
    return Uint32Array.from(rows);
  });
  const columns: readonly Column[] = [
    {
      id: "name",
      title: "Name",
      width: "minmax(10rem, 2fr)",
      text: (row) => of(row)?.name ?? "",
      render: (row) => <strong>{of(row)?.name}</strong>,
      value: (row) => of(row)?.name,
    },
    {
      id: "parameters",
      title: "Parameters",
      width: "minmax(9rem, 2fr)",
      text: (row) =>
        of(row)
          ?.parameters.map((one) => one.name)
          .join(", ") ?? "",
    },
    {
      id: "origin",
      title: "Origin",
      width: "8.5rem",
      text: (row) => originWords(of(row)?.origin),
      value: (row) => originWords(of(row)?.origin),
    },
    {
      id: "look-ahead",
      title: "Look-ahead",
      definition:
        "The verdict of the check that a registered algorithm passes through: do signals change when more bars become known?",
      width: "10rem",
      text: (row) => verdictWords(of(row)?.lookAhead).text,
      render: (row) => <VerdictMark verdict={of(row)?.lookAhead} />,
      value: (row) => verdictWords(of(row)?.lookAhead).text,
    },
  ];
  return (
    <Show when={shown().length > 0} fallback={<p class="panel-body muted">No algorithm has these words.</p>}>
      <VirtualTable
        label="Algorithms"
        rows={props.algorithms.length}
        shown={shown()}
        columns={columns}
        revision={props.algorithms}
        initialSort={{ column: "name", descending: false }}
        selected={props.chosen === undefined ? undefined : props.algorithms.indexOf(props.chosen)}
        onSelect={(row) => go({ screen: "algorithms", algorithm: of(row)?.name ?? "" })}
        visibleRows={24}
      />
    </Show>
  );
}
