// Watches a task that runs: tells what is new of its output and of its state until it has ended.

import { sleep } from "../wait.js";
import { backInSight, outOfSight } from "./sight.js";
import { Refused } from "./source.js";

const GLANCE = 5000; // milliseconds between two looks at a task that runs: its state may change without a line
const RETRY = 1000; // milliseconds before the end is asked for again
const NEWS = 250; // milliseconds between two words to the page about what has come

export class Watcher {
  /**
   * `onLines`, `onUnfinished` and `onConnection` are as in `Source.follow`. `onTask(task)` is told when the task has
   * changed, `onGrown()` now and then when there are more lines, `onMissed(last)` that there are so many lines, which
   * came while nobody looked, and `onRefused(error)` when the server refuses an answer.
   */
  constructor(source, task, signal, on) {
    this.source = source;
    this.task = task;
    this.last = task.last;
    this.signal = signal;
    this.on = on;
    this.news = 0; // a timer
    this.glancing = 0;
    signal.addEventListener("abort", () => this.#rest());
  }

  /** Watch; `first()` is the line from which on lines are wanted now. The task when it has ended. */
  async watch(first) {
    this.glancing = setInterval(() => this.#refresh(), GLANCE);
    while (!(await this.#followInSight(first()))) {
      await backInSight(this.signal);
      await this.#refresh();
      this.on.onMissed(this.last);
    }
    this.#rest();
    while (!this.task.finished) {
      await this.#refresh();
      if (!this.task.finished) await sleep(RETRY, this.signal); // the answer that tells the end got lost
    }
    return this.task;
  }

  #rest() {
    clearInterval(this.glancing);
    clearTimeout(this.news);
  }

  /** Follow until the task has ended, or nobody looks: then it is false. */
  async #followInSight(first) {
    const { onLines, onUnfinished, onConnection } = this.on;
    const sight = outOfSight();
    try {
      await this.source.follow(first, AbortSignal.any([this.signal, sight.signal]), {
        onLines: (lines) => {
          onLines(lines);
          this.#tell(lines.at(-1)[0] + 1);
        },
        onUnfinished: (lines) => {
          onUnfinished(lines);
          if (lines.length) this.#tell(this.last);
        },
        onConnection,
      });
      return true;
    } catch (error) {
      if (this.signal.aborted || !sight.signal.aborted) throw error;
      return false;
    } finally {
      sight.close();
    }
  }

  /** Tell the page, now and then, that there are `last` lines, or more, and that its task is not queued any more. */
  #tell(last) {
    const grown = last > this.last;
    this.last = Math.max(this.last, last);
    if (this.news || (!grown && this.task.state !== "queued")) return;
    this.news = setTimeout(async () => {
      this.news = 0;
      this.on.onGrown();
      if (this.task.state === "queued") await this.#refresh();
      else this.on.onTask({ ...this.task, last: this.last });
    }, NEWS);
  }

  async #refresh() {
    try {
      const found = await this.source.state(this.signal);
      if (this.task.finished) return; // asked before, answered after the end
      this.last = Math.max(this.last, found.last); // lines may have come since it was answered
      this.task = { ...found, last: this.last };
      this.on.onTask(this.task);
    } catch (error) {
      if (error instanceof Refused) this.on.onRefused(error);
    }
  }
}
