// Bringing text to the clipboard.

/** Copy a text, soon after a click. Resolves to whether that was possible. */
export async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByCommand(text); // over plain http there is no `clipboard`, but on localhost
  }
}

/** The old way, which is deprecated and works everywhere: the text takes the place of what would be copied. */
function copyByCommand(text) {
  let taken = false;
  const put = (event) => {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    taken = true;
  };
  // On the window, where it has the last word.
  addEventListener("copy", put);
  try {
    return document.execCommand("copy") && taken;
  } finally {
    removeEventListener("copy", put);
  }
}
