/** The configuration of a backtest, with every option, to read and to copy. */

import { For, type JSX } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { flattened } from "./configuration-paths";

export interface ConfigurationProps {
  readonly config: Readonly<Record<string, unknown>>;
}

/** Shows the configuration as it was run. */
export function Configuration(props: ConfigurationProps): JSX.Element {
  const app = useApp();
  const json = (): string => JSON.stringify(props.config, null, 2);
  const copy = (): void => {
    navigator.clipboard.writeText(json()).then(
      () => app.notices.show("The configuration was copied."),
      () => app.notices.show("The browser let nothing be copied: mark the text below and copy it.", { kind: "error" }),
    );
  };
  return (
    <section class="panel" data-testid="configuration" aria-label="Configuration">
      <div class="panel-header">
        <h2>Configuration</h2>
        <div class="actions">
          <Button onClick={copy}>Copy as JSON</Button>
        </div>
      </div>
      <dl class="panel-body configuration">
        <For each={flattened(props.config)}>
          {([name, value]) => (
            <div>
              <dt>
                <code>{name}</code>
              </dt>
              <dd class="mono">{value}</dd>
            </div>
          )}
        </For>
      </dl>
    </section>
  );
}
