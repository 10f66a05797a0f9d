// A task's output from the server: pieces of it, what comes new, and searches. It speaks NDJSON (PROTOCOLS.md, A5),
// which tells of each line its stream and time.

import { sleep } from "../wait.js";
import { compact } from "./text.js";

const FIRST_PAUSE = 250; // milliseconds before a broken connection is tried again; doubled up to the last
const LAST_PAUSE = 5000;
const QUIET = 20_000; // milliseconds of silence after which the server is asked whether it is really silent
const ANSWER_LIMIT = 10_000;
const MOST_AT_ONCE = 4_000_000; // characters of lines that one piece may have; what is left is asked for when needed

/** The server refuses for good: the session is over (401, 403) or the task gone (404). */
export class Refused extends Error {
  constructor(status) {
    super(`the server answered ${status}`);
    this.status = status;
  }
}

/** A task's output below `base`, which ends with a slash. */
export class Source {
  constructor(base, id) {
    this.task = `${base}v1/tasks/${encodeURIComponent(id)}`;
    this.output = `${this.task}/output`;
  }

  /** Where the output can be downloaded as text, with or without its escape codes. */
  download(escapes) {
    return `${this.output}?format=text${escapes ? "" : "&escapes=false"}`;
  }

  /** The task without its output. */
  async state(signal) {
    const { last } = await this.#json(`${this.output}?tail=0`, signal);
    const task = await this.#json(`${this.task}?first=${last}`, signal);
    delete task.output;
    return task;
  }

  /** Which lines from `first` on hold a text; see PROTOCOLS.md, "Search". */
  search(text, caseCounts, first, limit, signal) {
    return this.#json(`${this.output}/search?q=${encodeURIComponent(text)}&case=${caseCounts}&first=${first}&limit=${limit}`, signal);
  }

  /** Lines from `first` on, at most `count`, fewer if they are long: `onLine(n, line)` for each. */
  async read(first, count, signal, onLine) {
    const stop = new AbortController();
    const response = await ask(`${this.output}?format=ndjson&first=${first}&limit=${count}`, AbortSignal.any([signal, stop.signal]));
    let size = 0;
    for await (const records of batches(response)) {
      for (const record of records) {
        if (record.text === undefined) continue;
        onLine(record.n, kept(record));
        size += record.text.length;
      }
      if (size > MOST_AT_ONCE) break;
    }
    stop.abort();
  }

  /** The texts of lines as they were printed, at most `count`. */
  async texts(first, count, signal) {
    const found = [];
    for await (const records of batches(await ask(`${this.output}?format=ndjson&first=${first}&limit=${count}`, signal))) {
      for (const record of records) if (record.text !== undefined) found.push(record.text);
    }
    return found;
  }

  /** The same as one text, without escape codes. */
  async plainText(first, count, signal) {
    const text = await (await ask(`${this.download(false)}&first=${first}&limit=${count}`, signal)).text();
    return text.replace(/\n$/, "");
  }

  /**
   * Follow the output from `first` on until the task has ended; come back whenever the connection breaks.
   *
   * `onLines([[n, line]])` gets each line once and in order, `onUnfinished([line])` the lines that have no end yet (with
   * the next line they are no more, unless they are told again), `onConnection` "live", "reconnecting" or "caught-up".
   * Resolves when all is told. Rejects with Refused, or an AbortError.
   */
  async follow(first, signal, { onLines, onUnfinished, onConnection }) {
    let cursor = first;
    let pause = FIRST_PAUSE;
    let lost = false;
    for (;;) {
      try {
        const goal = await this.#json(`${this.output}?tail=0`, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_LIMIT)]));
        const broken = new AbortController();
        const url = `${this.output}?format=ndjson&follow=true&partial=true&first=${cursor}`;
        const response = await ask(url, AbortSignal.any([signal, broken.signal]));
        const tell = () => {
          if (lost && cursor < goal.last) return;
          onConnection(lost ? "caught-up" : "live");
          lost = false;
        };
        if (lost || cursor === first) tell();
        for await (const records of this.#watched(response, () => cursor, broken)) {
          const lines = [];
          let unfinished = null;
          let ended = false;
          for (const record of records) {
            if (record.partial !== undefined) {
              unfinished = drafts(record.partial);
            } else if (record.text !== undefined) {
              lines.push([record.n, kept(record)]);
              cursor = record.n + 1;
              unfinished = null;
            } else {
              ended = true;
            }
          }
          if (lines.length) onLines(lines);
          if (ended) return;
          if (unfinished) onUnfinished(unfinished);
          pause = FIRST_PAUSE;
          if (lost) tell();
        }
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof Refused) throw error;
      } finally {
        onUnfinished([]); // who comes back is told anew
      }
      // Ended without its last object, or not even begun: broken off.
      if (!lost) onConnection("reconnecting");
      lost = true;
      await sleep(pause * (0.75 + Math.random() / 2), signal);
      pause = Math.min(2 * pause, LAST_PAUSE);
    }
  }

  /** The stream's records. When it is silent for long, the server is asked; if it cannot be, or knows more, it ends. */
  async *#watched(response, cursor, broken) {
    let timer;
    const look = async () => {
      try {
        const { last } = await this.#json(`${this.output}?tail=0`, AbortSignal.timeout(ANSWER_LIMIT));
        if (last > cursor()) await sleep(QUIET / 10, broken.signal); // it may be on its way
        if (last > cursor()) broken.abort();
        else watch();
      } catch {
        broken.abort();
      }
    };
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(look, QUIET);
    };
    try {
      watch();
      for await (const records of batches(response)) {
        watch();
        yield records;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async #json(url, signal) {
    return (await ask(url, signal)).json();
  }
}

async function ask(url, signal) {
  const response = await fetch(url, { signal, cache: "no-store", headers: { Accept: "application/json" } });
  if ([401, 403, 404].includes(response.status)) throw new Refused(response.status);
  if (!response.ok) throw Object.assign(new Error(`the server answered ${response.status}`), { status: response.status });
  return response;
}

/** A record as it is kept. Milliseconds are what a browser's dates can hold. */
const kept = (record) => ({
  ...compact(record.text),
  stderr: record.stream === "stderr",
  time: Date.parse(record.time),
});

/** The streams' unfinished lines, as lines. */
const drafts = ({ stdout, stderr }) =>
  [kept({ text: stdout, stream: "stdout" }), kept({ text: stderr, stream: "stderr" })].filter((line) => line.text);

/** The objects of an NDJSON answer, those together that came together. */
async function* batches(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const end = value.lastIndexOf("\n");
      if (end < 0) {
        rest.push(value);
        continue;
      }
      const whole = rest.join("") + value.slice(0, end);
      rest = [value.slice(end + 1)];
      yield whole.split("\n").map((text) => JSON.parse(text));
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stopped it has been told why
  }
}
