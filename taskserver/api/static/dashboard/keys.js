// Keyboard: single keys do things, `?` lists them, and they can be switched off (WCAG 2.1.4).

import { fill, h } from "./dom.js";

const STORED = "taskserver-keys";
const EDITABLE = "input, textarea, select, [contenteditable]";

let off = false;
try {
  off = localStorage.getItem(STORED) === "off";
} catch {
  // storage is switched off
}

/** Obey `keys()`: `[key, what it does, f]` each, without `f` if somebody else obeys it. `?` shows all of them. */
export function obeyKeys(keys) {
  const all = () => [["?", "these keys", () => showKeys(all())], ...keys()];
  addEventListener(
    "keydown",
    (event) => {
      const modified = event.ctrlKey || event.metaKey || event.altKey;
      if (event.key.length !== 1 || modified || event.isComposing || event.target.closest?.(EDITABLE)) return;
      if (off || document.querySelector("dialog[open]")) {
        event.stopImmediatePropagation(); // nor are the views to obey it
        return;
      }
      const found = all().find(([key, , act]) => key === event.key && act);
      if (found) {
        event.preventDefault();
        found[2]();
      }
    },
    { capture: true },
  );
  document.getElementById("help").addEventListener("click", () => showKeys(all()));
}

function showKeys(keys) {
  const toggle = h("input", { type: "checkbox", id: "keys-on", checked: !off });
  toggle.addEventListener("change", () => {
    off = !toggle.checked;
    try {
      localStorage.setItem(STORED, off ? "off" : "on");
    } catch {
      // it holds until the page is left
    }
  });
  const rows = keys.map(([key, what]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, what)));
  const dialog = h("dialog", { "aria-labelledby": "keys-title" });
  fill(
    dialog,
    h("h2", { id: "keys-title" }, "Keys"),
    h("table", { class: "keys" }, h("tbody", {}, rows)),
    h("p", {}, toggle, " ", h("label", { for: "keys-on" }, "Single keys do things")),
    h("form", { method: "dialog" }, h("button", { autofocus: true }, "Close")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
