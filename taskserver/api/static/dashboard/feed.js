// What changes, as the server tells it (PROTOCOLS.md, A7), for as long as somebody looks.

import { Refusal, ask, base } from "./api.js";
import { pause } from "./wait.js";

const HIDDEN_PAUSE = 20000; // a page in the background lets go: browsers open six connections to a server, for all tabs
const RETRY_PAUSE = 2000;
const PATIENCE = 1500; // without the server's word, read all the same: a proxy may hold the events back
const READ_PAUSE = 2000; // between two readings of everything, however often the server asks for them

/**
 * Watch all tasks, or a `run`. `read(signal)` reads everything that is shown; it is called first, and whenever something
 * may have been missed. `onChanges({tasks, runs, deleted})` takes over what is told, also while a reading is under way.
 * `onConnection` is told "live" or "reconnecting".
 */
export function watchChanges({ run, read, onChanges, onConnection }) {
  const leaving = new AbortController();
  let source = null;
  let since = "";
  let hiddenTimer = 0;
  let reading = null;
  let readAgain = false;

  async function readAll() {
    if (reading) {
      readAgain = true;
      return;
    }
    do {
      readAgain = false;
      reading = read(leaving.signal);
      await reading;
      await pause(READ_PAUSE, leaving.signal);
    } while (readAgain && !leaving.signal.aborted);
    reading = null;
  }

  function open() {
    const query = new URLSearchParams({ ...(run && { run }), ...(since && { since }) });
    source = new EventSource(`${base}v1/changes?${query}`);
    source.addEventListener("open", () => onConnection("live"));
    source.addEventListener("reset", (event) => {
      since = event.lastEventId;
      readAll();
    });
    source.addEventListener("changes", (event) => {
      since = event.lastEventId;
      const news = JSON.parse(event.data);
      onChanges(news);
      if (news.more) readAll();
    });
    source.addEventListener("error", () => {
      onConnection("reconnecting");
      if (!since) readAll();
      if (source.readyState === EventSource.CLOSED) retry();
    });
  }

  /** An EventSource gives up at any answer but 200: a proxy's, or ours that the session is over. */
  async function retry() {
    close();
    await pause(RETRY_PAUSE, leaving.signal);
    if (leaving.signal.aborted || source) return;
    try {
      await ask("GET", "session", { signal: leaving.signal });
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) return; // the page has been told
    }
    if (!leaving.signal.aborted && !source && !document.hidden) open();
  }

  function close() {
    source?.close();
    source = null;
  }

  function onVisibility() {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(close, HIDDEN_PAUSE);
    else if (!source) open();
  }

  document.addEventListener("visibilitychange", onVisibility);
  open();
  onVisibility(); // a tab may be opened in the background
  pause(PATIENCE, leaving.signal).then(() => since || leaving.signal.aborted || readAll());
  return {
    /** Read everything again, because something else is to be shown. */
    readAll,
    close() {
      leaving.abort();
      clearTimeout(hiddenTimer);
      document.removeEventListener("visibilitychange", onVisibility);
      close();
    },
  };
}

const FINISHED = 1e9; // more than any attempt
const ATTEMPT = 100;
const OFFERED_AGAIN = 50;

/**
 * Of two versions of a task, or of a run, the one that is further on. A run that was claimed and is offered again is
 * queued with the attempt that it had while it was running.
 */
export function newer(one, other) {
  if (!one || !other) return one ?? other;
  const begun = (version) => version.created_at ?? version.queued_at;
  if (begun(one) !== begun(other)) return begun(one) > begun(other) ? one : other;
  const place = ({ finished, state, attempt = 0 }) => {
    if (finished) return FINISHED;
    return ATTEMPT * attempt + (state === "running" ? 2 : attempt && OFFERED_AGAIN);
  };
  const rank = (version) => place(version) + (version.cancel_requested ? 1 : 0);
  return rank(other) > rank(one) ? other : one;
}
