// A row: number, stream, time and text of a line. Whatever the text holds becomes text nodes and classes, never markup.

import { h } from "../dom.js";
import { paletteRgb, parse } from "./ansi.js";
import { formatHash } from "./ranges.js";
import { occurrences, pieces } from "./text.js";

const FLAGS = ["bold", "dim", "italic", "underline", "strike"];
const OWN_COLOURS = 16; // of the palette; style sheets say what they look like
const DRAWN = new WeakMap(); // what stands in a row: what is the same is left alone, with the reader's selection in it
const UNITS = ["B", "KB", "MB"];

/**
 * Fill `row` (make one if there is none) with line `n`.
 *
 * `line` is null while it is on its way; `style` is what the lines before it left behind; `mark` is
 * `{needle, caseCounts}` or null; `selected` and `current` tell how it stands out.
 */
export function drawRow(n, row, { line, style, mark, selected, current }) {
  row ??= h("div", { "data-n": n });
  if (stands(row, ["line", line, style, mark, selected, current])) return row;
  row.className = ["row", line?.stderr && "stderr", !line && "coming", selected && "selected", current && "current"]
    .filter(Boolean)
    .join(" ");
  row.classList.toggle("whole", Boolean(line?.whole));
  const number = h("a", { class: "number", href: formatHash([n, n]), tabindex: -1 }, String(n + 1));
  const stream = h("span", { class: "stream" }, line?.stderr ? "err" : "");
  row.replaceChildren(number, stream);
  if (!line) {
    row.append(h("span", { class: "text" }, "…"));
    return row;
  }
  const iso = Number.isNaN(line.time) ? "" : new Date(line.time).toISOString();
  row.append(h("time", { class: "time", datetime: iso, title: iso }, iso && clock(line.time)), drawText(line, style, mark));
  if (line.cut) row.append(h("button", { type: "button", class: "show-all" }, `show all ${size(line.cut)}`));
  return row;
}

/**
 * Fill `row` (make one if there is none) with a line that has no end yet and stands where line `n` would: it can change,
 * and has no number.
 */
export function drawUnfinished(n, row, { line, style, mark }) {
  row ??= h("div", { "data-n": n });
  if (stands(row, ["unfinished", line, style, mark])) return row;
  row.className = line.stderr ? "row unfinished stderr" : "row unfinished";
  row.replaceChildren(
    h("span", { class: "number" }, "…", h("span", { class: "unseen" }, "unfinished line")),
    h("span", { class: "stream" }, line.stderr ? "err" : ""),
    h("span", { class: "time" }),
    drawText(line, style, mark),
  );
  return row;
}

/** Whether exactly these values stand in a row. If not, they are noted, since the row is about to be drawn anew. */
function stands(row, values) {
  const before = DRAWN.get(row);
  if (before?.length === values.length && before.every((value, at) => value === values[at])) return true;
  DRAWN.set(row, values);
  return false;
}

function drawText(line, style, mark) {
  const { parts } = parse(line.text, style);
  const text = h("span", { class: "text" });
  const found = mark ? occurrences(parts.map((part) => part.text).join(""), mark.needle, mark.caseCounts) : [];
  let at = 0;
  for (const part of parts) {
    const holder = drawStyle(part);
    let begin = 0;
    for (const [from, to] of found) {
      const start = Math.max(from - at, 0);
      const stop = Math.min(to - at, part.text.length);
      if (start >= stop) continue;
      holder.append(...drawPieces(part.text.slice(begin, start)));
      holder.append(h("mark", {}, ...drawPieces(part.text.slice(start, stop))));
      begin = stop;
    }
    holder.append(...drawPieces(part.text.slice(begin)));
    text.append(holder);
    at += part.text.length;
  }
  return text;
}

const drawPieces = (text) =>
  pieces(text).map((piece) =>
    typeof piece === "string" ? piece : h("span", { class: "hidden-character", title: piece.name }, piece.shown),
  );

function drawStyle({ style, link }) {
  const classes = FLAGS.filter((flag) => style[flag]);
  const holder = link
    ? h("a", { href: link, title: link, target: "_blank", rel: "noopener noreferrer" })
    : document.createElement("span");
  const [fg, bg] = style.inverse ? [style.bg ?? "bg", style.fg ?? "fg"] : [style.fg, style.bg];
  colour(holder, classes, "fg", fg);
  colour(holder, classes, "bg", bg);
  if (classes.length) holder.className = classes.join(" ");
  return holder;
}

/** A colour as a class where the page has one of its own; scripts may set others although style attributes may not be. */
function colour(holder, classes, ground, value) {
  if (value === null) return;
  if (typeof value === "number" && value >= OWN_COLOURS) value = paletteRgb(value);
  if (typeof value === "string" && value.startsWith("rgb")) {
    holder.style[ground === "fg" ? "color" : "backgroundColor"] = value;
  } else {
    classes.push(`${ground}-${value}`);
  }
}

const two = (number) => String(number).padStart(2, "0");

function clock(time) {
  const date = new Date(time);
  const milliseconds = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${milliseconds}`;
}

function size(characters) {
  let unit = 0;
  for (; characters >= 1000 && unit < UNITS.length - 1; unit += 1) characters /= 1000;
  return `${characters.toFixed(unit ? 1 : 0)} ${UNITS[unit]}`;
}
