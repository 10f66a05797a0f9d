// Parts of the list: its filter, and what is shown in the place of tasks.

import { base } from "./api.js";
import { h } from "./dom.js";
import { STATES } from "./format.js";
import { copyable, hint } from "./parts.js";

const TYPING_PAUSE = 250; // milliseconds without a key after which the list follows the filter

/** The form with a filter's fields; `onChange(filter)` is told when they change. */
export function filterForm(filter, onChange) {
  const input = (name, label, hint) => [
    h("label", { for: `filter-${name}` }, label),
    h("input", {
      id: `filter-${name}`, name, type: "search", value: filter[name] ?? "", placeholder: hint, maxlength: 200,
      autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    }),
  ];
  const states = ["", ...STATES].map((state) =>
    h("option", { value: state, selected: state === (filter.state ?? "") }, state || "all"),
  );
  const form = h(
    "form",
    { class: "filter", role: "search", "aria-label": "Tasks" },
    h("div", {}, input("text", "Text", "name, id or label")),
    h("div", {}, h("label", { for: "filter-state" }, "State"), h("select", { id: "filter-state", name: "state" }, states)),
    h("div", {}, input("name", "Name", "exactly")),
    h("div", {}, input("label", "Label", "key=value")),
  );
  let timer = 0;
  const tell = () => {
    clearTimeout(timer);
    if (!form.isConnected) return;
    const label = form.elements.label;
    const bad = label.value.trim() !== "" && !/^[^=]+=/.test(label.value.trim());
    label.setAttribute("aria-invalid", String(bad));
    if (bad) return; // it is still being typed
    const fields = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
    onChange(Object.fromEntries(fields.filter(([, value]) => value)));
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(tell, TYPING_PAUSE);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tell();
  });
  return form;
}

/** There is no task at all: how to make one, here and now. */
export function nothingYet() {
  const url = base.replace(/\/$/, "");
  const key = 'export TASKSERVER_KEY="your key"';
  const auth = '-H "Authorization: Key $TASKSERVER_KEY"';
  const count = "for i in 1 2 3 4 5; do echo line $i; sleep 1; done";
  return hint(
    "No tasks yet",
    h("p", {}, "Put a command behind ", h("code", {}, "taskserver run --"), ", and its output appears here:"),
    copyable(`${key}\ntaskserver run --url ${url} --name hello -- sh -c '${count}'`, "the command"),
    h("p", {}, "Or send any output with curl:"),
    copyable(
      [
        key,
        `curl ${auth} -H "Content-Type: application/json" -d '{"id": "hello"}' ${url}/v1/tasks`,
        `(${count}) | curl ${auth} -T - ${url}/v1/tasks/hello/output`,
        `curl ${auth} -X POST ${url}/v1/tasks/hello/finish`,
      ].join("\n"),
      "the curl lines",
    ),
    h("p", { class: "muted" }, "A key sees the tasks of its own owner; an admin’s sees all."),
  );
}

/** No task passes the filter. */
export function nothingFound(onClear) {
  return hint(
    "No task matches",
    h("p", {}, "New ones appear here as soon as they do."),
    h("button", { type: "button", onclick: onClear }, "Show all tasks"),
  );
}
