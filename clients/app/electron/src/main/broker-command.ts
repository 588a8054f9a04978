/** Finds the command that starts a broker. Pure: the machine is given. */

import { posix, win32 } from "node:path";

/** The facts about the machine that decide how a broker is started. */
export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly env: { readonly [name: string]: string | undefined };
  readonly home: string;
  /** The root of the checkout that the app was built in; null for a packaged app. */
  readonly checkout: string | null;
  exists(file: string): boolean;
  /** The file that a path means, through all links. */
  realpath(file: string): string;
}

export interface BrokerCommand {
  readonly file: string;
  readonly args: readonly string[];
}

/** The sentence for a user on whose machine there is no broker to start. */
export const NO_BROKER =
  "no installed backtestr was found on this machine; install it with: pipx install 'backtestr[broker,engine]', " +
  "or name a Python that has it in BACKTESTR_PYTHON";

/** Folders that programs started from a desktop do not have in PATH. */
const USUAL = ["/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin"];

/**
 * Returns how to start a broker with the first Python that has backtestr: `$BACKTESTR_PYTHON`, that of the checkout, or
 * the one that the command `backtestr` belongs to. Null where there is none.
 */
export function brokerCommand(machine: Machine): BrokerCommand | null {
  const python = namedPython(machine) ?? checkoutPython(machine) ?? installedPython(machine);
  return python === undefined ? null : { file: python, args: ["-m", "backtestr_broker"] };
}

function namedPython({ env, exists }: Machine): string | undefined {
  const named = env.BACKTESTR_PYTHON;
  return named !== undefined && named !== "" && exists(named) ? named : undefined;
}

function checkoutPython(machine: Machine): string | undefined {
  if (machine.checkout === null) return undefined;
  const { join } = machine.platform === "win32" ? win32 : posix;
  const folder = join(machine.checkout, ".venv", machine.platform === "win32" ? "Scripts" : "bin");
  return pythonIn(machine, folder);
}

function installedPython(machine: Machine): string | undefined {
  const { platform, env, home, exists, realpath } = machine;
  const isWindows = platform === "win32";
  const { delimiter, join, dirname } = isWindows ? win32 : posix;
  const named = (env.PATH ?? env.Path ?? "").split(delimiter).filter((one) => one !== "");
  const folders = isWindows ? named : [...named, join(home, ".local/bin"), ...USUAL];
  for (const folder of folders) {
    const command = join(folder, isWindows ? "backtestr.exe" : "backtestr");
    if (!exists(command)) continue;
    // pipx and uv link the command out of the environment that it belongs to.
    const python = pythonIn(machine, dirname(realpath(command)));
    if (python !== undefined) return python;
  }
  return undefined;
}

function pythonIn({ platform, exists }: Machine, folder: string): string | undefined {
  const { join } = platform === "win32" ? win32 : posix;
  const names = platform === "win32" ? ["python.exe", "..\\python.exe"] : ["python", "python3"];
  return names.map((name) => join(folder, name)).find((file) => exists(file));
}
