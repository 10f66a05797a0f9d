// A task's page: what it is and how it stands, above its output.

import { Refusal, ask, base, events, getTask } from "./api.js";
import { announce, fill, h, refill } from "./dom.js";
import { newer } from "./feed.js";
import { plain, plural, title } from "./format.js";
import { confirmed, labelList, listAddress, notice, resultView, stateBadge, timeAgo, timeTaken } from "./parts.js";
import { setTab } from "./tab.js";

const CONNECTION = {
  live: "",
  reconnecting: "Connection lost. Reconnecting…",
  "caught-up": "Connected again; nothing is missing.",
};
const CAUGHT_UP_SHOWN = 4000; // milliseconds

/** Show the task `id` in `container`. */
export function showTask(container, { id, session, setBanner }) {
  const leaving = new AbortController();
  const header = h("header", { class: "task-header" });
  const lines = h("span", { class: "lines" });
  const output = h("section", { class: "output", "aria-label": "Output" });
  const keys = [
    ["u", "up to all tasks", () => document.getElementById("home").click()],
    ["/", "search the output"], // what the output itself obeys is only told here
    ["Home", "first line"],
    ["End", "last line, and follow"],
  ];
  const mayWrite = session.scopes.some((scope) => scope === "write" || scope === "admin");
  let viewer = null;
  let task = null;
  let described = ""; // what the header tells
  let bannerTimer = 0;

  /** Take over what is known of the task now; `whole` tells that nothing is missing. */
  function update(fresh, whole = false) {
    const before = task;
    const found = { ...before, ...fresh };
    const behind = before && newer(found, before) === before; // what was read earlier, told later
    task = behind ? { ...before, last: Math.max(before.last, found.last) } : found;
    lines.textContent = plural(task.last, "line");
    const changed = !before || before.state !== task.state || before.cancel_requested !== task.cancel_requested;
    if (changed || whole) showHeader();
    if (changed && before && !task.finished) announce(`The task is ${task.state}`); // of the end the output tells
    setTab(`${task.state} · ${title(task)}`, task.state);
    // Who tells of a change need not know the result or the times.
    if (changed && !whole) getTask(id, leaving.signal).then((read) => update(read, true), () => {});
  }

  function showHeader() {
    const words = JSON.stringify({ ...task, last: 0 }); // the count of lines has an element of its own
    if (words !== described) refill(header, describe(task, lines, mayWrite && !task.finished && cancelButton()));
    described = words;
  }

  function cancelButton() {
    const button = h("button", { type: "button", class: "danger", disabled: task.cancel_requested }, "Cancel task");
    button.addEventListener("click", async () => {
      if (!(await confirmed(`Ask “${title(task)}” to stop?`, "Cancel task"))) return;
      try {
        update(await ask("POST", `tasks/${encodeURIComponent(id)}/cancel`));
      } catch (error) {
        setBanner(`The task was not cancelled: ${error.message}`);
      }
    });
    return button;
  }

  function onConnection({ detail }) {
    clearTimeout(bannerTimer);
    setBanner(CONNECTION[detail] ?? "", detail === "reconnecting" ? "warning" : "good");
    if (detail === "caught-up") bannerTimer = setTimeout(() => setBanner(""), CAUGHT_UP_SHOWN);
  }

  /** The output says why it has nothing more to tell: the session is over, or the task is gone. */
  function onRefused({ detail: status }) {
    clearTimeout(bannerTimer);
    setBanner(""); // there was an answer
    if (status === 401) events.dispatchEvent(new Event("signed-out"));
    else fill(container, explain(new Refusal(status, 0, `the server refused with ${status}`), id, open));
  }

  async function open() {
    fill(container, h("p", { class: "loading" }, "Loading…"));
    try {
      const [found, { openOutput }] = await Promise.all([getTask(id, leaving.signal), import("./output/viewer.js")]);
      if (leaving.signal.aborted) return;
      update(found, true);
      fill(container, header, output);
      output.addEventListener("connection", onConnection);
      output.addEventListener("refused", onRefused);
      viewer = openOutput(output, { base, id, task: found, onTask: update, hash: location.hash });
    } catch (error) {
      if (!leaving.signal.aborted) fill(container, explain(error, id, open));
    }
  }

  function close() {
    leaving.abort();
    clearTimeout(bannerTimer);
    setBanner("");
    viewer?.close();
    container.classList.remove("whole");
  }

  container.classList.add("whole");
  setTab(id);
  open();
  return { keys, close };
}

function describe(task, lines, button) {
  return [
    h("h1", {}, h("bdi", {}, title(task))),
    h(
      "div",
      { class: "facts" },
      stateBadge(task.state, task.cancel_requested),
      task.code !== 0 && h("span", {}, `code ${task.code}`),
      task.started_at ? h("span", {}, "started ", timeAgo(task.started_at)) : h("span", {}, "created ", timeAgo(task.created_at)),
      task.started_at && timeTaken(task),
      lines,
      task.name && h("span", { class: "muted id" }, task.id),
      task.run && h("a", { class: "label", href: `${base}runs/${task.run.id}` }, "run: ", h("bdi", {}, plain(task.run.task_id))),
      labelList(task.labels, (key, value) => listAddress({ label: `${key}=${value}` })),
      button,
    ),
    task.error && h("p", { class: "error" }, h("bdi", {}, plain(task.error))),
    task.result && h("details", {}, h("summary", {}, "Result"), resultView(task.result)),
  ];
}

function explain(error, id, again) {
  const back = h("a", { href: base }, "All tasks");
  if (error instanceof Refusal && error.status === 404) {
    return notice("No such task", h("p", {}, "There is no task ", h("code", {}, plain(id)), " that your key may see."), back);
  }
  const button = h("button", { type: "button", onclick: again }, "Try again");
  return notice("This did not work", h("p", {}, plain(error.message)), button, " ", back);
}
