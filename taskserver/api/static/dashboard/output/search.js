// A search through the whole output, on the server, and where its matches stand.

const FIRST_LIMIT = 200; // matches of the first answer, which should come soon
const LIMIT = 10_000;
const MOST_KEPT = 1_000_000; // matches that can be stepped through; more are only counted
const RETRY = 1000;

export class Search {
  /** `onChange()` is called when there is more to tell, `onError(error)` if the server refuses. */
  constructor(source, { text, caseCounts, onChange, onError }) {
    this.source = source;
    this.text = text;
    this.caseCounts = caseCounts;
    this.onChange = onChange;
    this.onError = onError;
    this.count = 0; // lines that match in what was searched
    this.next = 0; // where the search goes on
    this.busy = false;
    this.problem = ""; // why it could not go on
    this.kept = 0;
    this.lines = new Uint32Array(1024);
    this.stop = new AbortController();
  }

  close() {
    this.stop.abort();
  }

  /** Search what has not been searched, up to the end of the output. Does nothing if it is at it. */
  async run() {
    if (this.busy || this.stop.signal.aborted) return;
    this.busy = true;
    try {
      for (let last = Infinity; this.next < last; ) last = await this.#step();
    } catch (error) {
      if (this.stop.signal.aborted) return;
      this.problem = error.message;
      this.onError(error);
    }
    this.busy = false;
    if (!this.stop.signal.aborted) this.onChange();
  }

  /** One request; resolves to the number of lines that there are. */
  async #step() {
    const limit = this.kept >= MOST_KEPT ? 0 : this.kept ? LIMIT : FIRST_LIMIT;
    let found;
    try {
      found = await this.source.search(this.text, this.caseCounts, this.next, limit, this.stop.signal);
    } catch (error) {
      this.stop.signal.throwIfAborted();
      if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY)); // the server is away for the moment
      this.stop.signal.throwIfAborted();
      return Infinity;
    }
    this.next = found.next;
    this.count += found.count;
    this.#keep(found.lines);
    this.onChange();
    return found.last;
  }

  #keep(lines) {
    if (this.kept + lines.length > this.lines.length) {
      const larger = new Uint32Array(2 * (this.kept + lines.length));
      larger.set(this.lines.subarray(0, this.kept));
      this.lines = larger;
    }
    this.lines.set(lines, this.kept);
    this.kept += lines.length;
  }

  /** How many matches stand before line `n`. */
  before(n) {
    let low = 0;
    let high = this.kept;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lines[middle] < n) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The line of a match by its place in the order; beyond the last comes the first, and the other way round. */
  at(place) {
    return this.kept ? this.lines[(place + this.kept) % this.kept] : null;
  }

  /** The place of line `n` among the matches, or -1. */
  placeOf(n) {
    const place = this.before(n);
    return place < this.kept && this.lines[place] === n ? place : -1;
  }
}
