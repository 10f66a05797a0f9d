// The output of a task: opens at the end of a running one and at the top of a finished one, and stays pleasant with
// millions of lines. Only what is on the screen and around it is in memory and in the document.

import { announce, fill, h, setText } from "../dom.js";
import { plural } from "../format.js";
import { PLAIN } from "./ansi.js";
import { CopyButton, copySelection } from "./copying.js";
import { keyHandler } from "./keys.js";
import { Loader } from "./loader.js";
import { PAGE, Pages } from "./pages.js";
import { formatHash, parseHash } from "./ranges.js";
import { drawRow, drawUnfinished } from "./row.js";
import { Scroller } from "./scroller.js";
import { SearchBar, toggle } from "./searchbar.js";
import { Refused, Source } from "./source.js";
import { showAll } from "./text.js";
import { Unfinished } from "./unfinished.js";
import { Watcher } from "./watcher.js";

const MOST_WHOLE = 8; // cut lines that are shown as a whole at the same time

/**
 * Show a task's output in `container`.
 *
 * `base` is the server's address with a slash at its end, `task` the task without its output, `hash` may name lines.
 * `onTask(task)` is told when the task has changed. The container gets `connection` events with the detail "live",
 * "reconnecting" or "caught-up", and a `refused` event with the HTTP status when the session is over or the task gone.
 */
export function openOutput(container, { base, id, task, onTask, hash = "" }) {
  const viewer = new Viewer(container, { base, id, task, onTask });
  viewer.open(hash);
  return { close: () => viewer.close() };
}

class Viewer {
  constructor(container, { base, id, task, onTask }) {
    this.container = container;
    this.task = task;
    this.onTask = onTask;
    this.source = new Source(base, id);
    this.pages = new Pages();
    this.total = task.last;
    this.unfinished = new Unfinished(() => this.#redrawEnd());
    this.seen = task.last; // how many lines there were when the reader was last at the end
    this.range = null;
    this.current = null; // the match that was gone to
    this.mark = null;
    this.whole = new Map(); // cut lines that are shown as a whole
    this.closing = new AbortController();
    this.#build();
    this.scroller = new Scroller(this.frame, { draw: (n, row) => this.#draw(n, row), onMove: () => this.#moved() });
    this.loader = new Loader(this.pages, this.source, {
      onLoad: () => this.scroller.refresh(),
      onFail: (error) => this.#failed(error),
      onRecover: () => this.#connection("recovered"),
    });
    const { signal } = this.closing;
    addEventListener("hashchange", () => this.#selectHash(location.hash), { signal });
    document.addEventListener("keydown", keyHandler(this.frame, this.scroller, this.searchBar), { signal });
  }

  open(hash) {
    this.scroller.setTotal(this.total);
    if (!this.#selectHash(hash) && !this.task.finished) this.scroller.showEnd();
    this.#show();
    this.#moved();
    if (!this.task.finished) this.#watch();
  }

  close() {
    this.closing.abort();
    this.loader.close();
    this.searchBar.close();
    this.unfinished.close();
    this.scroller.close();
  }

  #build() {
    this.searchBar = new SearchBar(this.source, {
      onMark: (mark) => {
        this.mark = mark;
        this.current = null;
        this.scroller.refresh();
      },
      onGo: (n) => {
        this.current = n;
        this.scroller.reveal(n);
        this.scroller.refresh();
      },
      from: () => this.scroller.top,
      onLeave: () => this.frame.focus(),
      onError: (error) => {
        if (error instanceof Refused) this.#failed(error);
      },
    });
    this.copyButton = new CopyButton(this.source, {
      signal: this.closing.signal,
      onRefused: (error) => this.#failed(error),
    });
    this.frame = h("div", {
      class: "frame",
      tabindex: 0,
      role: "log",
      "aria-live": "off", // a screen reader is told of changes, not of thousands of lines
      "aria-label": "Lines of output",
      onclick: (event) => this.#clicked(event),
      oncopy: copySelection,
    });
    this.newLines = h("button", { type: "button", class: "new-lines", hidden: true });
    this.newLines.addEventListener("click", () => this.scroller.showEnd());
    this.empty = h("p", { class: "empty", hidden: true });
    const download = (text, title, escapes, suffix) =>
      h("a", { href: this.source.download(escapes), download: `${this.task.id}${suffix}`, title }, text);
    fill(
      this.container,
      h(
        "div",
        { class: "output-bar", role: "group", "aria-label": "Output" },
        this.searchBar.element,
        toggle("Wrap", "Wrap long lines", (on) => this.#wrap(on)),
        toggle("Times", "Show the time of each line", (on) => this.#times(on)),
        this.copyButton.element,
        download("Download", "As text", false, ".txt"),
        download("with codes", "As it was printed, with its escape codes", true, ".log"),
      ),
      h("div", { class: "output-lines" }, this.frame, this.empty, this.newLines),
    );
  }

  // --- what is shown ---------------------------------------------------------------

  #draw(n, row) {
    if (n >= this.total) {
      const line = this.unfinished.lines[n - this.total];
      return drawUnfinished(n, row, { line, style: this.pages.styleAt(this.total), mark: this.mark });
    }
    const line = this.pages.get(n);
    return drawRow(n, row, {
      line: line && (this.whole.get(n) ?? line),
      style: line ? this.pages.styleAt(n) : PLAIN,
      mark: this.mark,
      selected: this.range !== null && n >= this.range[0] && n <= this.range[1],
      current: n === this.current,
    });
  }

  /** Other lines are on the screen, or there are more of them. */
  #moved() {
    const { top, end, following } = this.scroller;
    if (following) this.seen = this.total;
    const unseen = this.total - this.seen;
    const beyond = end <= this.total && this.unfinished.lines.length > 0;
    this.newLines.hidden = following || (unseen <= 0 && !beyond);
    if (!this.newLines.hidden) setText(this.newLines, `${unseen > 0 ? plural(unseen, "new line") : "unfinished line"} ↓`);
    this.frame.style.setProperty("--digits", String(this.total).length);
    this.loader.want(top, Math.max(end, top + this.scroller.screenful), this.total);
  }

  #show() {
    this.empty.hidden = this.total + this.unfinished.lines.length > 0;
    if (!this.total) setText(this.empty, this.task.finished ? "This task has printed nothing." : "No output yet.");
  }

  #wrap(on) {
    this.frame.classList.toggle("wrap", on);
    this.scroller.wide = !on;
    this.#heights();
  }

  #times(on) {
    this.frame.classList.toggle("times", on);
    this.scroller.refresh();
  }

  /** Rows may have become of different heights, or equal. */
  #heights() {
    this.scroller.uniform = this.scroller.wide && this.whole.size === 0;
    this.scroller.refresh();
  }

  // --- what comes ------------------------------------------------------------------

  async #watch() {
    const watcher = new Watcher(this.source, this.task, this.closing.signal, {
      onLines: (lines) => this.#came(lines),
      onUnfinished: (lines) => {
        this.unfinished.set(lines);
        this.#redrawEnd();
      },
      onConnection: (state) => this.#connection(state),
      onTask: (task) => this.#setTask(task),
      onGrown: () => this.searchBar.grown(),
      onMissed: (last) => this.#grow(last), // the lines are fetched when they are looked at
      onRefused: (error) => this.#failed(error),
    });
    try {
      // From the beginning of a page, so that none is left with a gap before what comes.
      const ended = await watcher.watch(() => Math.max(0, Math.floor((this.total - 1) / PAGE)) * PAGE);
      this.#grow(ended.last);
      this.searchBar.grown();
      this.#show();
      announce(`The task has ended: ${ended.state}.`);
    } catch (error) {
      this.#failed(error);
    }
  }

  #setTask(task) {
    this.task = task;
    this.onTask(task);
  }

  #came(lines) {
    for (const [n, line] of lines) this.pages.put(n, line);
    this.unfinished.pass(lines.map(([, line]) => line));
    this.scroller.refreshFrom(lines[0][0]);
    this.#grow(lines.at(-1)[0] + 1);
  }

  /** Other lines are unfinished: they stand in rows of their own behind the last line. */
  #redrawEnd() {
    this.scroller.refreshFrom(this.total);
    this.#grow(this.total);
    this.#show();
  }

  /** There are `total` lines or more. */
  #grow(total) {
    if (total > this.total) {
      this.total = total;
      this.copyButton.mark(this.range, total);
      this.#show();
    }
    this.scroller.setTotal(this.total + this.unfinished.lines.length);
    this.#moved();
  }

  #connection(state) {
    if (state === "recovered") {
      if (!this.task.finished || !this.lost) return; // of a running task the stream tells
      state = "caught-up";
    }
    if (state === "reconnecting" && this.lost) return; // a page that was asked for, and the stream
    this.lost = state === "reconnecting";
    this.container.dispatchEvent(new CustomEvent("connection", { detail: state }));
  }

  #failed(error) {
    if (this.closing.signal.aborted) return;
    if (error instanceof Refused) {
      this.close();
      this.container.dispatchEvent(new CustomEvent("refused", { detail: error.status }));
    } else {
      this.#connection("reconnecting");
    }
  }

  // --- what the reader does ----------------------------------------------------------

  #clicked(event) {
    const row = event.target.closest(".row");
    if (!row || Number(row.dataset.n) >= this.total) return;
    const n = Number(row.dataset.n);
    if (event.target.closest(".number")) {
      event.preventDefault();
      const from = event.shiftKey && this.range ? this.anchor : n;
      if (!event.shiftKey) this.anchor = n;
      this.#select([Math.min(from, n), Math.max(from, n)]);
      history.replaceState(history.state, "", formatHash(this.range));
    } else if (event.target.closest(".show-all")) {
      this.#showWhole(n);
    }
  }

  #select(range) {
    this.range = range;
    this.copyButton.mark(range, this.total);
    this.scroller.refresh();
  }

  /** Go to the lines that a link names. False if it names none. */
  #selectHash(hash) {
    const range = parseHash(hash);
    if (!range) return false;
    this.anchor = range[0];
    this.#select(range);
    this.scroller.showAt(range[0], Math.floor(this.scroller.screenful / 4));
    return true;
  }

  async #showWhole(n) {
    try {
      const [text] = await this.source.texts(n, 1, this.closing.signal);
      const line = this.pages.get(n);
      if (text === undefined || !line) return;
      this.whole.set(n, { ...line, ...showAll(text), whole: true });
      if (this.whole.size > MOST_WHOLE) this.whole.delete(this.whole.keys().next().value);
      this.#heights();
    } catch (error) {
      this.#failed(error);
    }
  }
}
