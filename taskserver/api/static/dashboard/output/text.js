// What of a line is shown: the last state of a progress bar, no more than fits, and nothing that hides or deceives.

import { styleCodes } from "./ansi.js";

/** Characters of a line that are shown at once, and kept. */
export const SHOWN = 5000;

// Control characters but tab, and those that change the direction of text or break the line without being seen.
// eslint-disable-next-line no-control-regex
const HIDDEN = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();

/**
 * A line of output as it is kept: `{text, cut}`.
 *
 * A carriage return brings a terminal back to the line's beginning, so what counts is what stands behind the last one
 * that has something behind it. `cut` is the length of the whole where it is too long to be shown, else 0. What is left
 * out keeps its effect on colours.
 */
export function compact(whole) {
  if (whole.length <= SHOWN && !whole.includes("\r")) return { text: whole, cut: 0 };
  const begin = lastBegin(whole);
  let end = begin + SHOWN;
  if (end < whole.length && isHighSurrogate(whole.charCodeAt(end - 1))) end -= 1;
  const rest = whole.slice(end).replace(/\r+$/, "");
  const text = styleCodes(whole.slice(0, begin)) + whole.slice(begin, end).replace(/\r+$/, "") + styleCodes(rest);
  return { text: own(text), cut: rest ? whole.length : 0 };
}

/** The whole of a line that was cut, when somebody asks for it. */
export const showAll = (whole) => ({ text: whole, cut: 0 });

/** Where what is shown of a line begins. */
function lastBegin(text) {
  let end = text.length;
  while (end > 0 && text[end - 1] === "\r") end -= 1;
  return text.lastIndexOf("\r", end - 1) + 1;
}

const isHighSurrogate = (code) => code >= 0xd800 && code < 0xdc00;

/** The same text in memory of its own: a slice would keep the megabyte that it was cut from. */
const own = (text) => DECODER.decode(ENCODER.encode(text));

/** Pieces of a text: strings to be shown as they are, and `{shown, name}` for characters that would not be seen. */
export function pieces(text) {
  const found = [];
  let begin = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > begin) found.push(text.slice(begin, match.index));
    found.push(visible(match[0]));
    begin = match.index + 1;
  }
  if (begin < text.length) found.push(text.slice(begin));
  return found;
}

function visible(character) {
  const code = character.charCodeAt(0);
  const name = `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  if (code < 0x20 || code === 0x7f) return { shown: `^${String.fromCharCode(code ^ 0x40)}`, name }; // as terminals do
  return { shown: name, name };
}

/** Where `needle` stands in `text`: `[[begin, end]]`. */
export function occurrences(text, needle, caseCounts) {
  const found = [];
  if (!needle) return found;
  let where = text;
  let what = needle;
  if (!caseCounts) {
    where = text.toLowerCase();
    what = needle.toLowerCase();
    if (where.length !== text.length) return found; // letters that grow: positions would be wrong
  }
  for (let at = where.indexOf(what); at >= 0; at = where.indexOf(what, at + what.length)) {
    found.push([at, at + what.length]);
  }
  return found;
}
