// The lines that have no end yet, such as progress bars that move: at most one for each stream, behind the last line.

const GRACE = 250; // milliseconds until what stands behind new lines must have been told: it comes right behind them

export class Unfinished {
  /** `onLeave()` is called when lines leave by themselves. */
  constructor(onLeave) {
    this.lines = [];
    this.onLeave = onLeave;
    this.leaving = 0;
  }

  /** These there are now. One that is the same as before stays the same object, and what is drawn of it stands. */
  set(lines) {
    clearTimeout(this.leaving);
    const before = this.lines;
    this.lines = lines.map((line) => before.find((one) => one.stderr === line.stderr && one.text === line.text) ?? line);
  }

  /** Lines have come: those of their streams are whole. Others stay a moment, so that they need not go and come again. */
  pass(lines) {
    this.set(this.lines.filter((one) => !lines.some((line) => line.stderr === one.stderr)));
    if (this.lines.length) this.leaving = setTimeout(() => this.#leave(), GRACE);
  }

  close() {
    clearTimeout(this.leaving);
  }

  #leave() {
    this.lines = [];
    this.onLeave();
  }
}
