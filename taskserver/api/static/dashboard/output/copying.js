// Copying: the texts of lines, without their numbers, times and escape codes.

import { toClipboard } from "../clipboard.js";
import { announce, h, setText } from "../dom.js";
import { plural } from "../format.js";
import { Refused } from "./source.js";

const COPIED_AT_ONCE = 10_000; // lines: what the server gives at a time

/** The button that copies the lines that are marked. `onRefused(error)` is told when the server refuses. */
export class CopyButton {
  constructor(source, { signal, onRefused }) {
    this.source = source;
    this.signal = signal;
    this.onRefused = onRefused;
    this.range = null;
    this.count = 0;
    this.element = h("button", { type: "button", hidden: true, onclick: () => this.#copy() }, "Copy lines");
  }

  /** The lines `range` are marked, of `total` that there are: a link may name more. */
  mark(range, total) {
    const count = range ? Math.max(0, Math.min(range[1] + 1, total) - range[0]) : 0;
    if (range === this.range && count === this.count) return;
    this.range = range;
    this.count = count;
    this.element.hidden = !count;
    setText(this.element, `Copy ${plural(count, "line")}`);
  }

  async #copy() {
    const { range, count } = this;
    const pieces = [];
    let outcome;
    try {
      for (let done = 0; done < count; done += COPIED_AT_ONCE) {
        const step = Math.min(COPIED_AT_ONCE, count - done);
        pieces.push(await this.source.plainText(range[0] + done, step, this.signal));
      }
      const copied = await toClipboard(pieces.join("\n"));
      // A browser may want the click to be recent, which it is not any more when there was much to fetch.
      outcome = copied ? "Copied" : "Not allowed to copy: use Download";
    } catch (error) {
      if (error instanceof Refused) this.onRefused(error);
      outcome = "Copying failed";
    }
    if (this.signal.aborted || this.range !== range) return; // others are marked by now
    setText(this.element, outcome);
    announce(outcome === "Copied" ? `${plural(count, "line")} copied` : outcome);
  }
}

/** Takes a `copy` event's text from the rows that the selection touches. */
export function copySelection(event) {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed) return;
  const range = selection.getRangeAt(0);
  const texts = [...event.currentTarget.querySelectorAll(".text")].filter((text) => range.intersectsNode(text));
  if (!texts.length) return;
  event.clipboardData.setData("text/plain", texts.map((text) => within(range, text)).join("\n"));
  event.preventDefault();
}

/** The part of an element's text that lies in a range. */
function within(range, element) {
  const part = document.createRange();
  part.selectNodeContents(element);
  if (range.comparePoint(element, 0) === 0) part.setStart(element, 0);
  if (part.comparePoint(range.startContainer, range.startOffset) === 0) {
    part.setStart(range.startContainer, range.startOffset);
  }
  if (part.comparePoint(range.endContainer, range.endOffset) === 0) part.setEnd(range.endContainer, range.endOffset);
  return part.toString();
}
