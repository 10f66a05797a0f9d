// The keys of the output: lines, screens and ends while it has the focus; the search from everywhere on the page.

const STEPS = {
  ArrowUp: () => -1,
  ArrowDown: () => 1,
  PageUp: (screenful) => 1 - screenful,
  PageDown: (screenful) => screenful - 1,
};

/** A listener for `keydown` of the document. */
export function keyHandler(frame, scroller, searchBar) {
  return (event) => {
    if (event.defaultPrevented) return;
    const find = event.key === "f" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    // The browser's own search sees only what is on the screen; a second Ctrl-F opens it all the same.
    if ((find && document.activeElement !== searchBar.input) || (event.key === "/" && !isTyping(event.target))) {
      event.preventDefault();
      searchBar.open();
    } else if (event.target === frame && !event.ctrlKey && !event.metaKey && !event.altKey) {
      if (move(event, scroller)) event.preventDefault();
    }
  };
}

function move(event, scroller) {
  if (event.key === "Home") scroller.showStart();
  else if (event.key === "End") scroller.showEnd();
  else if (event.key === " ") scroller.scrollLines(STEPS[event.shiftKey ? "PageUp" : "PageDown"](scroller.screenful));
  else if (event.key in STEPS && !event.shiftKey) scroller.scrollLines(STEPS[event.key](scroller.screenful));
  else return false;
  return true;
}

const isTyping = (element) => element.closest?.("input, textarea, select, [contenteditable]") !== null;
