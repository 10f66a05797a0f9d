// Fetches the pages that are on the screen and their neighbours, and gives up those that are no longer wanted.

import { PAGE } from "./pages.js";

const AT_ONCE = 2;
const RETRY = 1000; // milliseconds after a failure

export class Loader {
  /** `onLoad()` is called when lines have come, `onFail(error)` when they have not, `onRecover()` when they do again. */
  constructor(pages, source, { onLoad, onFail, onRecover }) {
    this.pages = pages;
    this.source = source;
    this.onLoad = onLoad;
    this.onFail = onFail;
    this.onRecover = onRecover;
    this.running = new Map(); // page number to AbortController
    this.wanted = [];
    this.total = 0;
    this.failed = false;
    this.closed = false;
  }

  /** Have lines `[first, end)` of `total` lines in memory, and what lies around them. */
  want(first, end, total) {
    this.total = total;
    const from = Math.floor(first / PAGE);
    const to = Math.floor(Math.max(first, end - 1) / PAGE);
    this.wanted = [];
    for (let number = from; number <= to; number += 1) this.wanted.push(number);
    // The page before comes first: it tells in which style this one begins.
    if (from > 0) this.wanted.push(from - 1);
    this.wanted.push(to + 1);
    // Where readers go next, mostly: the end.
    const last = Math.floor(Math.max(0, total - 1) / PAGE);
    this.wanted.push(last, Math.max(0, last - 1));
    this.pages.want(this.wanted.toReversed());
    for (const [number, controller] of this.running) if (!this.wanted.includes(number)) controller.abort();
    this.#start();
  }

  close() {
    this.closed = true;
    for (const controller of this.running.values()) controller.abort();
  }

  #start() {
    if (this.closed || this.failed) return;
    for (const number of this.wanted) {
      if (this.running.size >= AT_ONCE) return;
      const missing = this.pages.missing(number, this.total);
      if (missing && !this.running.has(number)) this.#load(number, missing);
    }
  }

  async #load(number, { first, count }) {
    const controller = new AbortController();
    this.running.set(number, controller);
    try {
      await this.source.read(first, count, controller.signal, (n, line) => this.pages.put(n, line));
      this.running.delete(number);
      if (this.closed) return;
      this.onRecover();
      this.onLoad();
    } catch (error) {
      this.running.delete(number);
      if (this.closed) return;
      if (!controller.signal.aborted) this.#fail(error);
    }
    this.#start();
  }

  #fail(error) {
    this.failed = true;
    this.onFail(error);
    setTimeout(() => {
      this.failed = false;
      this.#start();
    }, RETRY);
  }
}
