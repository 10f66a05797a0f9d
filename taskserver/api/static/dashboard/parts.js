// Small parts that several views show.

import { base } from "./api.js";
import { toClipboard } from "./clipboard.js";
import { ticking } from "./clock.js";
import { announce, h } from "./dom.js";
import { ago, elapsed, exact, plain } from "./format.js";

const RESULT_SHOWN = 20000; // characters; a result may have a megabyte

/** A state as icon and word. */
export function stateBadge(state, cancelRequested = false) {
  const text = cancelRequested && state === "running" ? "running, asked to stop" : state;
  const icon = h("img", { src: `${base}dashboard/icons/${state}.svg`, alt: "", width: 16, height: 16 });
  return h("span", { class: `state state-${state}` }, icon, text);
}

/** How long ago, with the exact time on hover and for assistive technology. */
export function timeAgo(time) {
  const element = h("time", { datetime: time, title: exact(time) });
  return ticking(element, (now) => ago(time, now));
}

/** How long something took, or takes so far. */
export function timeTaken({ started_at: begun, finished_at: ended }) {
  const element = h("span", { class: "duration" });
  if (!ended && begun) return ticking(element, (now) => elapsed(begun, null, now));
  element.textContent = elapsed(begun, ended, 0);
  return element;
}

/** Labels as a list; `link(key, value)` makes the address that each leads to. */
export function labelList(labels, link) {
  const items = Object.entries(labels).map(([key, value]) =>
    h("li", {}, h("a", { href: link(key, value), class: "label" }, h("bdi", {}, plain(`${key}=${value}`)))),
  );
  return items.length ? h("ul", { class: "labels", "aria-label": "Labels" }, items) : null;
}

/** The address of the list, filtered. */
export const listAddress = (filter = {}) => {
  const query = new URLSearchParams(filter).toString();
  return base + (query && `?${query}`);
};

/** What a task left at its end. */
export function resultView(result) {
  const text = JSON.stringify(result.data, null, 2);
  const cut = text.length > RESULT_SHOWN;
  return [
    h("p", { class: "muted" }, "Type ", h("bdi", {}, plain(result.type))),
    h("pre", { class: "result", tabindex: 0 }, cut ? text.slice(0, RESULT_SHOWN) : text),
    cut && h("p", { class: "muted" }, `The first ${RESULT_SHOWN.toLocaleString()} characters of ${text.length.toLocaleString()}.`),
  ];
}

/** A command or text with a button that copies it. */
export function copyable(text, label) {
  const code = h("code", {}, text);
  const button = h("button", { type: "button", class: "quiet", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    const copied = await toClipboard(text);
    if (!copied) getSelection().selectAllChildren(code);
    button.textContent = copied ? "Copied" : "Selected";
    announce(button.textContent);
  });
  return h("div", { class: "copyable" }, h("pre", { tabindex: 0 }, code), button);
}

/** A message in the place of a page: what is wrong or missing, and what to do next. */
export const notice = (headline, ...children) => h("section", { class: "card notice" }, h("h1", {}, headline), ...children);

/** The same in the place of a part of a page. */
export const hint = (headline, ...children) => h("section", { class: "card notice" }, h("h2", {}, headline), ...children);

/** Ask before doing what cannot be undone. Resolves to whether to do it. */
export function confirmed(question, yes) {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "question" },
    h(
      "form",
      { method: "dialog" },
      h("p", { id: "question" }, question),
      h(
        "div",
        { class: "choices" },
        h("button", { value: "no", autofocus: true }, "No"),
        h("button", { value: "yes", class: "danger" }, yes),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
