// Links to lines: #L120 and #L120-L140. People count lines from 1, the protocol from 0; ranges here are [first, last].

/** The lines that a hash names, from 0 on, both included; null if it names none. */
export function parseHash(hash) {
  const match = /^#L([1-9]\d{0,9})(?:-L?([1-9]\d{0,9}))?$/.exec(hash);
  if (!match) return null;
  const one = Number(match[1]) - 1;
  const other = match[2] ? Number(match[2]) - 1 : one;
  return [Math.min(one, other), Math.max(one, other)];
}

/** The hash of lines. */
export const formatHash = ([first, last]) => (first === last ? `#L${first + 1}` : `#L${first + 1}-L${last + 1}`);
