// One timer for all that shows how long ago or how long so far.

const TICK = 1000;
const shown = new Map(); // element → its text at a time

/** Keep an element's text true while it is in the page: `text(now)` is asked every second. Returns the element. */
export function ticking(element, text) {
  shown.set(element, text);
  element.textContent = text(Date.now());
  return element;
}

setInterval(() => {
  if (document.hidden) return;
  const now = Date.now();
  for (const [element, text] of shown) {
    if (!element.isConnected) {
      shown.delete(element);
      continue;
    }
    const fresh = text(now);
    if (element.textContent !== fresh) element.textContent = fresh;
  }
}, TICK);
