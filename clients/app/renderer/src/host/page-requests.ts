/** The requests of a page to the program that serves it, over HTTP, and their errors. */

import { HostError, type HostSession, type Upload } from "./host";

const OPEN_AGAIN = "run `backtestr ui` again and open the link it prints";
const NO_ANSWER = `the program that serves this page does not answer; ${OPEN_AGAIN}`;
/** Milliseconds that a question may take; starting a broker has as long as the server gives it. */
const QUESTION_MS = 10_000;

/** Asks the host for its session. Rejects with a `HostError`, as all here. */
export async function askSession(): Promise<HostSession> {
  return (await asked("/api/session", { signal: AbortSignal.timeout(QUESTION_MS) })) as HostSession;
}

/** Has the host start a broker; resolves once that serves. */
export async function askForBroker(): Promise<void> {
  await asked("/api/broker", { method: "POST" });
}

/** Has the host remove an uploaded file. */
export async function discardUpload(path: string): Promise<void> {
  await asked(`/api/uploads?${new URLSearchParams({ path })}`, { method: "DELETE" });
}

/** Sends a file with its progress, 0 to 1; `fetch` would not tell of that. */
export function sendFile(file: File, progress: (share: number) => void, signal?: AbortSignal): Promise<Upload> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = (): void => request.abort();
    const settle = (end: () => void) => (): void => {
      signal?.removeEventListener("abort", abort);
      end();
    };
    request.upload.addEventListener("progress", ({ lengthComputable, loaded, total }) => {
      if (lengthComputable && total > 0) progress(loaded / total);
    });
    const answered = (): void => {
      if (request.status >= 200 && request.status < 300) resolve(parsed(request.responseText) as Upload);
      else reject(refusal(request.status, request.responseText));
    };
    request.addEventListener("load", settle(answered));
    request.addEventListener(
      "error",
      settle(() => reject(new HostError("HOST_UNREACHABLE", `${file.name} was not sent: ${NO_ANSWER}`))),
    );
    request.addEventListener(
      "abort",
      settle(() => reject(new DOMException(`the upload of ${file.name} was stopped`, "AbortError"))),
    );
    request.open("POST", `/api/uploads?${new URLSearchParams({ name: file.name })}`);
    if (signal?.aborted === true) {
      reject(new DOMException(`the upload of ${file.name} was stopped`, "AbortError"));
      return;
    }
    signal?.addEventListener("abort", abort);
    progress(0);
    request.send(file);
  });
}

async function asked(address: string, options: RequestInit): Promise<unknown> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(address, { ...options, credentials: "same-origin", cache: "no-store" });
    text = await response.text();
  } catch {
    throw new HostError("HOST_UNREACHABLE", NO_ANSWER);
  }
  if (!response.ok) throw refusal(response.status, text);
  return text === "" ? undefined : parsed(text);
}

/** Returns the error that the host has stated; one that states none is named by its status. */
export function refusal(status: number, text: string): HostError {
  if (status === 401) return new HostError("SESSION_EXPIRED", `this page was opened by an old link; ${OPEN_AGAIN}`);
  const stated = (parsed(text) as { error?: unknown } | undefined)?.error;
  if (!isStated(stated)) return new HostError("HOST_ERROR", `the program that serves this page answered ${status}`);
  return new HostError(stated.code, stated.message, stated.recoveryActions ?? []);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isStated(error: unknown): error is Pick<HostError, "code" | "message"> & Partial<HostError> {
  const { code, message } = (error ?? {}) as Partial<HostError>;
  return typeof code === "string" && typeof message === "string";
}
