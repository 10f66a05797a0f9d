// Small parts that several views show.

import { base } from "./api.js";
import { ticking } from "./clock.js";
import { announce, h } from "./dom.js";
import { ago, exact } from "./format.js";

/** A state as icon and word. */
export function stateBadge(state) {
  return h(
    "span",
    { class: `state state-${state}` },
    h("img", { src: `${base}dashboard/icons/${state}.svg`, alt: "", width: 16, height: 16 }),
    state,
  );
}

/** How long ago, with the exact time on hover and for assistive technology. */
export function timeAgo(time) {
  const element = h("time", { datetime: time, title: exact(time) });
  return ticking(element, (now) => ago(time, now));
}

/** A command or text with a button that copies it. */
export function copyable(text) {
  const button = h("button", { type: "button", class: "quiet copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied");
      button.textContent = "Copied";
    } catch {
      // Without https the clipboard is out of reach: select the text for the reader.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  });
  const code = h("code", {}, text);
  return h("div", { class: "copyable" }, h("pre", {}, code), button);
}

/** A message in the place of content: what is wrong or missing, and what to do next. */
export function notice(headline, ...children) {
  return h("section", { class: "card notice" }, h("h1", {}, headline), ...children);
}
