// Copying what is selected: the texts of the lines, without their numbers, times and escape codes.

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
