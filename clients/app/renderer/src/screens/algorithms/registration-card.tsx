import type { AlgorithmInfo } from "@backtestr/client/page";
import { type JSX, Match, Show, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { Select, TextField } from "../../components/field";
import { Waiting } from "../../components/states";
import { count } from "../../format/numbers";
import { chooseAlgorithm } from "./choose-algorithm";
import { failedPlace } from "./python-source";
import type { Registration, RegistrationStage } from "./registrations";
import { SourceView } from "./source-view";
import { Verdict } from "./verdict";

type Stage<Kind extends RegistrationStage["kind"]> = Extract<RegistrationStage, { kind: Kind }>;

/** One file that is to be registered, from its choice to its version or the refusal. */
export function RegistrationCard(props: { readonly registration: Registration; chooseAgain(): void }): JSX.Element {
  const { registration } = props;
  const at = <Kind extends RegistrationStage["kind"]>(kind: Kind): Stage<Kind> | undefined => {
    const stage = registration.stage();
    return stage.kind === kind ? (stage as Stage<Kind>) : undefined;
  };
  return (
    <section class="panel" aria-label={`Registration of ${registration.fileName}`}>
      <header class="panel-header">
        <h2>{registration.fileName}</h2>
        <span class="muted small">{count(registration.source.split("\n").length)} lines</span>
        <div class="actions">
          <Show when={at("sending") === undefined}>
            <Button kind="quiet" aria-label={`Dismiss ${registration.fileName}`} onClick={() => registration.dismiss()}>
              ✕
            </Button>
          </Show>
        </div>
      </header>
      <div class="panel-body registration-body">
        <Switch>
          <Match when={at("done")}>{(stage) => <Done info={stage().info} source={registration.source} />}</Match>
          <Match when={at("sending")}>
            {(stage) => (
              <Waiting what="the broker, which runs the source and checks it for look-ahead" since={stage().since} />
            )}
          </Match>
          <Match when={true}>
            <Show when={at("refused")}>
              {(stage) => <Refused registration={registration} error={stage().error} chooseAgain={props.chooseAgain} />}
            </Show>
            <form
              class="registration-form"
              onSubmit={(event) => {
                event.preventDefault();
                void registration.start();
              }}
            >
              <NameField registration={registration} />
              <Button kind="primary" type="submit">
                {at("refused") === undefined ? "Register" : "Register again"}
              </Button>
            </form>
          </Match>
        </Switch>
      </div>
    </section>
  );
}

function NameField(props: { readonly registration: Registration }): JSX.Element {
  const { algorithms } = useApp();
  const { registration } = props;
  const hint = (): string => {
    const state = algorithms.state();
    const known = state.state === "there" && state.value.algorithms.find((one) => one.name === registration.name());
    if (!known) return "A new algorithm; it runs in workers, with the rights of the broker's user.";
    return known.origin === "registered"
      ? `Becomes a new version of ${known.name}; earlier ones stay usable by their id.`
      : `${known.name} is ${known.origin === "folder" ? "in the broker's folder" : "built in"}: the broker refuses this name.`;
  };
  return (
    <Show
      when={registration.names.length > 1}
      fallback={<TextField label="Name" value={registration.name()} onInput={registration.setName} hint={hint()} />}
    >
      <Select
        label="Algorithm of the file"
        value={registration.name()}
        choices={registration.names.map((name) => ({ value: name, label: name }))}
        onChange={registration.setName}
        hint={hint()}
      />
    </Show>
  );
}

function Refused(props: {
  readonly registration: Registration;
  readonly error: unknown;
  chooseAgain(): void;
}): JSX.Element {
  return (
    <ErrorPanel
      error={props.error}
      title="The source was refused; nothing was kept"
      actions={[{ label: "Choose the corrected file", run: props.chooseAgain }]}
    >
      <Show when={failedPlace(props.error, props.registration.name())}>
        {(place) => (
          <SourceView source={props.registration.source} place={place()} fileName={props.registration.fileName} />
        )}
      </Show>
    </ErrorPanel>
  );
}

function Done(props: { readonly info: AlgorithmInfo; readonly source: string }): JSX.Element {
  const { drafts, go } = useApp();
  return (
    <>
      <p>
        <strong>{props.info.name}</strong> is registered as version <code>{props.info.version}</code>.
      </p>
      <Show when={props.info.lookAhead}>
        {(verdict) => <Verdict verdict={verdict()} name={props.info.name} source={props.source} />}
      </Show>
      <div class="registration-actions">
        <Button
          kind="primary"
          onClick={() => {
            chooseAlgorithm(drafts, props.info.name);
            go({ screen: "run" });
          }}
        >
          Backtest it
        </Button>
        <Button onClick={() => go({ screen: "algorithms", algorithm: props.info.name })}>Look at it</Button>
      </div>
    </>
  );
}
