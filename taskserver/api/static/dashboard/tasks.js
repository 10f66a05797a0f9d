// The list of all tasks.

import { ask, base } from "./api.js";
import { fill, h } from "./dom.js";
import { title } from "./format.js";
import { stateBadge, timeAgo } from "./parts.js";
import { setTab } from "./tab.js";

/** Show the tasks in `container`. */
export function showTasks(container) {
  const leaving = new AbortController();
  setTab("Tasks");
  ask("GET", "tasks", { signal: leaving.signal }).then(({ tasks }) => {
    fill(container, h("h1", {}, "Tasks"), h("ul", { id: "tasks" }, tasks.map(row)));
  });
  return { close: () => leaving.abort() };
}

function row(task) {
  const href = `${base}tasks/${encodeURIComponent(task.id)}`;
  return h("li", {}, stateBadge(task.state), " ", h("a", { href }, h("bdi", {}, title(task))), " ", timeAgo(task.created_at));
}
