// Lines in memory: pages of PAGE lines, the ones that were looked at last, however long the output is.

import { PLAIN, styleAfter } from "./ansi.js";

/** Lines of a page: what is asked for at a time. */
export const PAGE = 256;
const MOST_PAGES = 128;
const MOST_CHARACTERS = 8_000_000; // of all pages but those that are wanted, which with long lines may have more

export class Pages {
  constructor(mostPages = MOST_PAGES, mostCharacters = MOST_CHARACTERS) {
    this.pages = new Map(); // by number; the one that was used last is the last
    this.mostPages = mostPages;
    this.mostCharacters = mostCharacters;
    this.size = 0;
    this.wanted = new Set();
  }

  /** A line, `{text, cut, stderr, time}`, or null if it is not here. */
  get(n) {
    return this.#use(Math.floor(n / PAGE))?.lines[n % PAGE] ?? null;
  }

  /** These pages are on the screen, or near it: they are not forgotten, or they would have to be fetched for ever. */
  want(numbers) {
    this.wanted = new Set(numbers);
    for (const number of numbers) this.#use(number);
    this.#forget();
  }

  /**
   * Keep a line. A page is filled from its beginning; a line that is here already changes nothing, since no line ever
   * changes. One that would leave a gap is not kept, and will be asked for.
   */
  put(n, line) {
    const number = Math.floor(n / PAGE);
    let page = this.#use(number);
    if (!page) {
      if (n % PAGE) return;
      page = { number, lines: [], size: 0, style: PLAIN, styles: [PLAIN] };
      this.pages.set(number, page);
    }
    if (n % PAGE !== page.lines.length) return;
    page.lines.push(line);
    page.size += line.text.length;
    this.size += line.text.length;
    this.#forget(page);
  }

  /** Where a page has to be read from so that it is whole, and how many lines: null if it is, of `total` lines in all. */
  missing(number, total) {
    const have = this.pages.get(number)?.lines.length ?? 0;
    const first = number * PAGE + have;
    const count = Math.min((number + 1) * PAGE, total) - first;
    return count > 0 ? { first, count } : null;
  }

  /**
   * The style with which a line begins: what the lines before it left behind.
   *
   * It is known from the beginning of the pages that are here without a gap; before them it is taken to be plain.
   */
  styleAt(n) {
    const begun = this.pages.get(Math.floor(n / PAGE));
    const page = begun ?? (n % PAGE ? null : this.pages.get(n / PAGE - 1)); // at the end of all lines there may be none yet
    const at = page ? n - page.number * PAGE : 0;
    return page && at <= page.lines.length ? this.#styles(page, at)[at] : PLAIN;
  }

  /** A page's styles, each line's at its beginning, up to the line `upto`. */
  #styles(page, upto) {
    const before = this.pages.get(page.number - 1);
    // What the page before it said once stays true when that page is forgotten.
    const begin = before?.lines.length === PAGE ? this.#styles(before, PAGE)[PAGE] : page.style;
    if (begin !== page.style) {
      page.style = begin;
      page.styles = [begin];
    }
    const { lines, styles } = page;
    for (let at = styles.length; at <= upto; at += 1) styles.push(styleAfter(lines[at - 1].text, styles[at - 1]));
    return styles;
  }

  #use(number) {
    const page = this.pages.get(number);
    if (page) {
      this.pages.delete(number);
      this.pages.set(number, page);
    }
    return page;
  }

  /** Forget what was used least recently, as long as there is too much. */
  #forget(except) {
    for (const page of this.pages.values()) {
      if (this.pages.size <= this.mostPages && this.size <= this.mostCharacters) return;
      if (page === except || this.wanted.has(page.number)) continue;
      this.pages.delete(page.number);
      this.size -= page.size;
    }
  }
}
