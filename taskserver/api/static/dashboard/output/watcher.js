// Watches a task that runs: tells what is new of its output and of its state until it has ended.

import { sleep } from "../wait.js";
import { backInSight, outOfSight } from "./sight.js";
import { Refused } from "./source.js";

const GLANCE = 5000; // milliseconds between two looks at a task that runs: its state may change without a line
const RETRY = 1000; // milliseconds before the end is asked for again
const TELL = 250; // milliseconds between two words to the page about how the task grows

export class Watcher {
  /**
   * `onLines`, `onPartial` and `onConnection` are as in `Source.follow`; `onTask(task)` is told when the task has
   * changed, `onGrown(last)` now and then how many lines it has, `onRefused(error)` when the server refuses an answer.
   */
  constructor(source, task, signal, tell) {
    this.source = source;
    this.task = task;
    this.signal = signal;
    this.tell = tell;
    signal.addEventListener("abort", () => clearTimeout(this.telling));
  }

  /** Watch; `first()` is the line from which on lines are wanted now. Resolves at the end, rejects as `Source.follow`. */
  async watch(first) {
    const glancing = setInterval(() => this.#refresh(), GLANCE);
    this.signal.addEventListener("abort", () => clearInterval(glancing));
    while (!(await this.#followInSight(first()))) {
      await backInSight(this.signal);
      // Lines that came meanwhile are fetched when they are looked at.
      await this.#refresh();
      this.tell.onGrown(this.task.last);
    }
    clearInterval(glancing);
    while (!this.task.finished) {
      await this.#refresh();
      if (!this.task.finished) await sleep(RETRY, this.signal); // the answer that tells the end got lost
    }
  }

  /** Follow until the task has ended, or nobody looks: then it is false. */
  async #followInSight(first) {
    const { onLines, onPartial, onConnection } = this.tell;
    const sight = outOfSight();
    try {
      await this.source.follow(first, AbortSignal.any([this.signal, sight.signal]), {
        onLines: (lines) => {
          if (!lines.length) return;
          onLines(lines);
          this.#grown(lines.at(-1)[0] + 1);
        },
        onPartial,
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

  #grown(last) {
    this.last = last;
    if (this.telling) return;
    this.telling = setTimeout(async () => {
      this.telling = 0;
      this.tell.onGrown(this.last);
      if (this.task.state === "queued") await this.#refresh();
      else this.tell.onTask({ ...this.task, last: this.last });
    }, TELL);
  }

  async #refresh() {
    try {
      const found = await this.source.state(this.signal);
      if (this.task.finished) return; // asked before, answered after the end
      this.task = found;
      this.tell.onTask(found);
    } catch (error) {
      if (error instanceof Refused) this.tell.onRefused(error);
    }
  }
}
