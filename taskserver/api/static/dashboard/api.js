// Talking to the server with the session's cookie.

/** The server's own address, with a slash at its end: this file lies in `dashboard/` below it, whatever the prefix. */
export const base = new URL("../", import.meta.url).href;

/** Tells the page what every part of it must know: "signed-out" when the session is over. */
export const events = new EventTarget();

/** The server's refusal of a request: its HTTP status, A2's number, and its words. */
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** No answer came: the server or the way to it is down. */
export class Unreachable extends Error {}

/**
 * Ask room A; `path` is relative to `/v1/`. Resolves to the JSON of the answer. Rejects with Refusal or Unreachable.
 * A 401 tells the page that the session is over, unless it is `expected`.
 */
export async function ask(method, path, { body, signal, expected } = {}) {
  const request = { method, signal, cache: "no-store", headers: { Accept: "application/json" } };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let answer;
  let text;
  try {
    answer = await fetch(`${base}v1/${path}`, request);
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("the server cannot be reached");
  }
  let value = null;
  try {
    value = text && JSON.parse(text);
  } catch {
    // A proxy's page, most likely: the status says enough.
  }
  if (answer.ok) return value;
  // A proxy in front of a server that restarts answers in its place.
  if ([502, 503, 504].includes(answer.status)) throw new Unreachable(value?.error ?? "the server does not answer now");
  if (answer.status === 401 && !expected) events.dispatchEvent(new Event("signed-out"));
  throw new Refusal(answer.status, value?.code ?? 0, value?.error ?? `${answer.status} ${answer.statusText}`);
}

/** A task without its output: A1 asked from the output's end on. */
export async function getTask(id, signal) {
  const path = `tasks/${encodeURIComponent(id)}`;
  const { last } = await ask("GET", `${path}/output?tail=0`, { signal });
  const task = await ask("GET", `${path}?first=${last}`, { signal });
  delete task.output; // a few lines that came in between; the viewer reads its own
  return task;
}
