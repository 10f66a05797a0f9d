// Escape codes: colours and styles become objects, everything else that a terminal would obey is left out.
// The sequences are those of `taskserver/escapes.py`; `tests/escapes.json` holds both to the same cases.

const SEQUENCE =
  // eslint-disable-next-line no-control-regex
  /\x1b(?:\[([0-?]*)([ -/]*)([@-~]?)|([\]PX^_])([^\x07\x1b\n]*)(?:\x07|\x1b\\)|[ -/]*[0-~]?)/g;
const ESCAPE = "\x1b";
const LONGEST_LINK = 2048;

/** What a terminal starts with. A style is never changed, only replaced. */
export const PLAIN = Object.freeze({
  fg: null, // null, a number of the palette of 256, or a CSS colour
  bg: null,
  bold: false,
  dim: false,
  italic: false,
  underline: false,
  strike: false,
  inverse: false,
});

const SIMPLE = {
  1: { bold: true },
  2: { dim: true },
  3: { italic: true },
  4: { underline: true },
  7: { inverse: true },
  9: { strike: true },
  21: { underline: true }, // doubly
  22: { bold: false, dim: false },
  23: { italic: false },
  24: { underline: false },
  27: { inverse: false },
  29: { strike: false },
  39: { fg: null },
  49: { bg: null },
};
const COLOURS = { 38: "fg", 48: "bg", 58: null }; // 58 is the underline's colour, which is read and not shown

/** The text without escape codes. */
export const strip = (text) => (text.includes(ESCAPE) ? text.replace(SEQUENCE, "") : text);

/** Text in one style: `[{text, style, link}]`, and the style that holds after it. Links end with the line. */
export function parse(text, style = PLAIN) {
  if (!text.includes(ESCAPE)) return { parts: text ? [{ text, style, link: null }] : [], style };
  const parts = [];
  let link = null;
  let begin = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    if (match.index > begin) parts.push({ text: text.slice(begin, match.index), style, link });
    begin = match.index + match[0].length;
    if (isStyle(match)) style = restyle(style, match[1]);
    else if (match[4] === "]" && match[5].startsWith("8;")) link = safeLink(match[5]);
  }
  if (begin < text.length) parts.push({ text: text.slice(begin), style, link });
  return { parts, style };
}

/** The style that holds after a text. */
export function styleAfter(text, style) {
  if (!text.includes(ESCAPE)) return style;
  for (const match of text.matchAll(SEQUENCE)) if (isStyle(match)) style = restyle(style, match[1]);
  return style;
}

/** The codes of a text that change the style, since it was last reset: a short text with the same effect. */
export function styleCodes(text) {
  if (!text.includes(ESCAPE)) return "";
  let codes = "";
  for (const match of text.matchAll(SEQUENCE)) {
    if (!isStyle(match)) continue;
    codes = /^0*$/.test(match[1]) ? match[0] : (codes + match[0]).slice(-1000);
  }
  return codes.slice(Math.max(0, codes.indexOf(ESCAPE)));
}

const isStyle = (match) => match[3] === "m" && match[2] === "" && !/[<=>?]/.test(match[1]);

/** SGR (ECMA-48, 8.3.117; colours as ISO 8613-6 and as xterm): the style after `parameters`, such as "1;31". */
function restyle(style, parameters) {
  const codes = parameters.split(";");
  let next = style;
  for (let at = 0; at < codes.length; at += 1) {
    const [code, ...details] = codes[at].split(":");
    const number = Number(code);
    if (number === 0) {
      next = PLAIN;
    } else if (number in COLOURS) {
      // "38:2::1:2:3" brings its numbers along, "38;2;1;2;3" takes those that follow.
      const numbers = details.length ? details : codes.slice(at + 1, at + 5);
      const [colour, used] = readColour(numbers, details.length > 0);
      if (COLOURS[number] && colour !== undefined) next = { ...next, [COLOURS[number]]: colour };
      if (!details.length) at += used;
    } else if (number === 4 && details[0] === "0") {
      next = { ...next, underline: false };
    } else if (number in SIMPLE) {
      next = { ...next, ...SIMPLE[number] };
    } else {
      const colour = paletteColour(number);
      if (colour) next = { ...next, ...colour };
    }
  }
  return next;
}

function paletteColour(number) {
  if (number >= 30 && number <= 37) return { fg: number - 30 };
  if (number >= 40 && number <= 47) return { bg: number - 40 };
  if (number >= 90 && number <= 97) return { fg: number - 90 + 8 };
  if (number >= 100 && number <= 107) return { bg: number - 100 + 8 };
  return null;
}

/** A colour of the palette of 256 or of red, green and blue, and how many numbers it took. */
function readColour(numbers, own) {
  const byte = (text) => (/^\d{1,3}$/.test(text ?? "") && Number(text) < 256 ? Number(text) : undefined);
  if (numbers[0] === "5") return [byte(numbers[1]), 2];
  if (numbers[0] !== "2") return [undefined, 1];
  // With colons the name of a colour space may stand before the colours, and is mostly empty.
  const rgb = (own && numbers.length > 4 ? numbers.slice(2, 5) : numbers.slice(1, 4)).map(byte);
  return [rgb.length === 3 && !rgb.includes(undefined) ? `rgb(${rgb.join(", ")})` : undefined, 4];
}

/** The colour of a number of the palette from 16 on, as xterm has it. The first 16 are the page's own. */
export function paletteRgb(number) {
  if (number >= 232) return `rgb(${Array(3).fill(8 + (number - 232) * 10).join(", ")})`;
  const level = (step) => (step ? 55 + step * 40 : 0);
  const index = number - 16;
  return `rgb(${[Math.floor(index / 36), Math.floor(index / 6) % 6, index % 6].map(level).join(", ")})`;
}

/** The address of "8;parameters;address" if it is one of http or https, else null. */
function safeLink(text) {
  const address = text.slice(text.indexOf(";", 2) + 1);
  if (!address || address.length > LONGEST_LINK) return null;
  try {
    const url = new URL(address);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}
