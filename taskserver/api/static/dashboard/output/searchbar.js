// The search field: what is looked for, how much was found, and steps from match to match.

import { h, setText } from "../dom.js";
import { Search } from "./search.js";

const TYPING = 250; // milliseconds after the last key before the server is asked

export class SearchBar {
  /** `onMark(mark)` says what to highlight, `onGo(n)` which line to show; `from()` tells where to begin. */
  constructor(source, { onMark, onGo, from, onLeave, onError }) {
    this.source = source;
    this.callbacks = { onMark, onGo, from, onLeave, onError };
    this.search = null;
    this.current = null; // the line that was gone to
    this.waiting = 0; // the direction of a step for which nothing has been found yet
    this.input = h("input", {
      type: "search",
      placeholder: "Search",
      "aria-label": "Search the output",
      "aria-keyshortcuts": "/ Control+F",
      maxlength: 1000,
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      oninput: () => this.#typed(),
      onkeydown: (event) => this.#key(event),
    });
    this.count = h("span", { class: "count", role: "status" });
    this.caseButton = toggle("Aa", "Match case", () => this.#begin());
    this.element = h(
      "div",
      { class: "search", role: "search" },
      this.input,
      this.caseButton,
      h("button", { type: "button", "aria-label": "Previous match", onclick: () => this.step(-1) }, "↑"),
      h("button", { type: "button", "aria-label": "Next match", onclick: () => this.step(1) }, "↓"),
      this.count,
    );
  }

  open() {
    this.input.focus();
    this.input.select();
  }

  close() {
    clearTimeout(this.typing);
    this.search?.close();
  }

  /** There are more lines than there were. */
  grown() {
    if (this.search && !this.search.busy) this.search.run();
  }

  /** Go to the next match, or the previous one. */
  step(direction) {
    if (!this.search) {
      this.#begin();
      return;
    }
    if (!this.search.kept) {
      this.waiting = direction;
      return;
    }
    const from = this.current ?? this.callbacks.from();
    let place = this.search.before(from);
    if (direction < 0) place -= 1;
    else if (this.current !== null && this.search.placeOf(from) === place) place += 1;
    this.#go(this.search.at(place));
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.#begin(), TYPING);
  }

  #key(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      if (this.search?.text === this.input.value) this.step(event.shiftKey ? -1 : 1);
      else this.#begin();
    } else if (event.key === "Escape") {
      event.preventDefault();
      this.input.value = "";
      this.#begin();
      this.callbacks.onLeave();
    }
  }

  #begin() {
    clearTimeout(this.typing);
    this.search?.close();
    this.search = this.current = null;
    const text = this.input.value;
    const caseCounts = this.caseButton.getAttribute("aria-pressed") === "true";
    this.callbacks.onMark(text ? { needle: text, caseCounts } : null);
    this.waiting = 1;
    if (text) {
      const search = new Search(this.source, {
        text,
        caseCounts,
        onChange: () => this.search === search && this.#changed(),
        onError: this.callbacks.onError,
      });
      this.search = search;
      search.run();
    }
    this.#show();
  }

  #changed() {
    // The first match from where the reader is, which may not have been reached yet.
    if (this.waiting && this.search.kept) {
      const reached = this.search.before(this.callbacks.from()) < this.search.kept;
      if (reached || !this.search.busy) {
        const direction = this.waiting;
        this.waiting = 0;
        this.step(direction);
      }
    }
    this.#show();
  }

  #go(n) {
    this.current = n;
    this.callbacks.onGo(n);
    this.#show();
  }

  #show() {
    setText(this.count, this.search ? this.#words() : "");
    this.element.classList.toggle("nothing", Boolean(this.search && !this.search.busy && !this.search.count));
  }

  #words() {
    const { count, busy, problem } = this.search;
    if (problem) return problem;
    const more = busy ? "…" : "";
    if (!count) return busy ? "searching…" : "no match";
    const place = this.current === null ? -1 : this.search.placeOf(this.current);
    const lines = `${count.toLocaleString()}${more} line${count === 1 ? "" : "s"}`;
    return place < 0 ? lines : `${(place + 1).toLocaleString()} of ${lines}`;
  }
}

/** A button that is on or off. */
export function toggle(text, label, onChange) {
  const button = h("button", { type: "button", "aria-pressed": "false", "aria-label": label, title: label }, text);
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    onChange(button.getAttribute("aria-pressed") === "true");
  });
  return button;
}
