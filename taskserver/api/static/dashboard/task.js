// A task's page: what it is and how it stands, above its output.

import { Refusal, ask, base, getTask } from "./api.js";
import { ticking } from "./clock.js";
import { announce, fill, h } from "./dom.js";
import { elapsed, title } from "./format.js";
import { notice, stateBadge, timeAgo } from "./parts.js";
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
  const output = h("section", { class: "output", "aria-label": "Output" });
  const mayWrite = session.scopes.some((scope) => scope === "write" || scope === "admin");
  let viewer = null;
  let task = null;
  let bannerTimer = 0;

  function update(fresh) {
    const before = task;
    task = { ...task, ...fresh };
    if (!before || before.state !== task.state || before.cancel_requested !== task.cancel_requested) {
      fill(header, describe(task, mayWrite, update));
      if (before && before.state !== task.state) announce(`${title(task)}: ${task.state}`);
    }
    setTab(`${task.state} · ${title(task)}`, task.state);
    if (task.finished && before && !before.finished) getTask(id, leaving.signal).then(update, () => {});
  }

  function onConnection(event) {
    clearTimeout(bannerTimer);
    setBanner(CONNECTION[event.detail] ?? "", event.detail === "reconnecting" ? "warning" : "good");
    if (event.detail === "caught-up") bannerTimer = setTimeout(() => setBanner(""), CAUGHT_UP_SHOWN);
  }

  async function open() {
    try {
      const found = await getTask(id, leaving.signal);
      update(found);
      const { openOutput } = await import("./output/viewer.js");
      if (leaving.signal.aborted) return;
      fill(container, header, output);
      output.addEventListener("connection", onConnection);
      viewer = openOutput(output, { base, id, task: found, onTask: update, hash: location.hash });
    } catch (error) {
      if (!leaving.signal.aborted) fill(container, explain(error, id));
    }
  }

  fill(container, h("p", { class: "loading" }, "Loading…"));
  setTab(id);
  open();
  return {
    close() {
      leaving.abort();
      clearTimeout(bannerTimer);
      setBanner("");
      viewer?.close();
    },
  };
}

function describe(task, mayWrite, update) {
  return [
    h("h1", {}, h("bdi", {}, title(task))),
    h(
      "p",
      { class: "facts" },
      stateBadge(task.state),
      task.code !== 0 && h("span", {}, `code ${task.code}`),
      timeAgo(task.started_at ?? task.created_at),
      task.started_at &&
        ticking(h("span", { class: "duration" }), (now) => elapsed(task.started_at, task.finished_at, now)),
    ),
    task.error && h("p", { class: "problem" }, h("bdi", {}, task.error)),
    mayWrite && !task.finished && cancelButton(task, update),
  ];
}

function cancelButton(task, update) {
  async function cancel() {
    if (!confirm(`Ask "${title(task)}" to stop?`)) return;
    update(await ask("POST", `tasks/${encodeURIComponent(task.id)}/cancel`));
  }
  return h("button", { type: "button", class: "danger", onclick: cancel, disabled: task.cancel_requested }, "Cancel");
}

function explain(error, id) {
  if (error instanceof Refusal && error.status === 404) {
    return notice("No such task", h("p", {}, "There is no task ", h("code", {}, id), " that your key may see."));
  }
  return notice("This did not work", h("p", {}, error.message));
}
