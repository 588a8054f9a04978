/** A broker in this thread that has keys, as the shared state of a real one. */

import { type Asked, FakeBroker, failed } from "./fake-broker.js";

interface Entry {
  value: unknown;
  version: number;
}

/** A broker with keys. */
export class Keys extends FakeBroker {
  readonly entries = new Map<string, Entry>();
  readonly versions = new Map<string, number>();
  revision = 0;

  constructor() {
    super();
    Object.assign(this.handlers, {
      SnapshotState: ({ data }: Asked) => ({
        entries: [...this.entries]
          .filter(([key]) => key.startsWith(data.prefix))
          .map(([key, { value, version }]) => ({ key, value, version, checksum: "c", timestamp: 0 })),
        watermark: this.revision,
      }),
      UpdateState: ({ data }: Asked) => {
        const current = this.entries.get(data.key);
        if (data.expectedVersion !== undefined && data.expectedVersion !== (current?.version ?? 0)) {
          return failed("STATE_CONFLICT", {
            currentVersion: current?.version ?? 0,
            currentValue: current?.value ?? null,
          });
        }
        return { key: data.key, version: this.set(data.key, data.value), checksum: "c" };
      },
      DeleteState: ({ data }: Asked) => {
        if (!this.entries.has(data.key)) return failed("NOT_FOUND");
        const version = this.#next(data.key);
        this.entries.delete(data.key);
        return { key: data.key, version };
      },
    });
  }

  #next(key: string): number {
    this.revision += 1;
    const version = (this.versions.get(key) ?? 0) + 1;
    this.versions.set(key, version);
    return version;
  }

  /** Sets a key without telling anyone. */
  set(key: string, value: unknown): number {
    const version = this.#next(key);
    this.entries.set(key, { value, version });
    return version;
  }

  /** Sets a key as another client does, and tells everyone. */
  async change(key: string, value: unknown): Promise<void> {
    const version = this.set(key, value);
    await this.publish(`state.${key}`, "StateUpdate", {
      key,
      value,
      version,
      checksum: "c",
      timestamp: 0,
      revision: this.revision,
    });
  }
}
