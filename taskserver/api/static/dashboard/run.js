// A run's page: how it stands, its tasks on a timeline, and what came out.

import { Refusal, ask, base, getTask } from "./api.js";
import { announce, arrange, fill, h, refill } from "./dom.js";
import { newer, watchChanges } from "./feed.js";
import { plain, plural } from "./format.js";
import { confirmed, notice, resultView, stateBadge, timeAgo, timeTaken } from "./parts.js";
import { setTab } from "./tab.js";
import { bar, spanOf } from "./timeline.js";

const TICK = 1000;

/** Show the run `id` in `container`. */
export function showRun(container, { id, session, setBanner }) {
  const path = `runs/${encodeURIComponent(id)}`;
  const leaving = new AbortController();
  const header = h("header", { class: "run-header" });
  const body = h("tbody", {});
  const table = h("table", { class: "tasks run" }, head(), body);
  const mayWrite = session.scopes.some((scope) => scope === "write" || scope === "admin");
  const stats = h("ul", { class: "stats", "aria-label": "Tasks by state" });
  let run = null;
  let described = null; // the version of it that the header tells of
  let rows = new Map(); // id → {task, element, chart}
  let deleted = new Set(); // since the reading under way began

  async function read(signal) {
    deleted = new Set();
    try {
      const { tasks, ...found } = await ask("GET", path, { signal });
      takeRun(found);
      for (const task of tasks) if (!deleted.has(task.id)) put(task);
      show();
    } catch (error) {
      if (signal.aborted) return;
      if (run && !(error instanceof Refusal)) setBanner(`${error.message}. What you see may be out of date.`);
      else fill(container, explain(error, id, () => read(signal)));
      if (isGone(error)) feed.close(); // it would go on asking
    }
  }

  function takeRun(found) {
    const before = run;
    run = newer(run, found);
    if (before && before.state !== run.state) announce(`The run: ${run.state}`);
  }

  function put(task) {
    const known = rows.get(task.id);
    const entry = known ?? { element: h("tr", {}), chart: h("td", { class: "chart" }) };
    const fresh = known ? newer(known.task, task) : task;
    if (fresh !== entry.task) refill(entry.element, cells(fresh, entry.chart));
    entry.task = fresh;
    rows.set(task.id, entry);
  }

  function onChanges(news) {
    if (news.deleted.includes(id)) {
      close();
      fill(container, notice("This run was deleted", h("a", { href: base }, "All tasks")));
      return;
    }
    for (const found of news.runs) takeRun(found);
    for (const task of news.tasks) put(task);
    for (const gone of news.deleted) {
      deleted.add(gone);
      rows.delete(gone);
    }
    if (run) show();
  }

  function show() {
    const tasks = [...rows.values()].map(({ task }) => task);
    if (described !== run) refill(header, describe(run, stats, mayWrite && !run.finished && cancelButton()));
    described = run;
    fill(stats, counts(tasks));
    arrange(body, [...rows.values()].map(({ element }) => element));
    draw();
    if (!header.isConnected) fill(container, header, table);
    table.hidden = !rows.size;
    setTab(`${run.state} · ${plain(run.dag_id)}`, run.state);
  }

  function draw() {
    if (!rows.size || document.hidden) return;
    const entries = [...rows.values()];
    const now = Date.now();
    const span = spanOf(entries.map(({ task }) => task), now);
    for (const { task, chart } of entries) fill(chart, bar(task, span, now));
  }

  function cancelButton() {
    const button = h("button", { type: "button", class: "danger", disabled: run.cancel_requested }, "Cancel run");
    button.addEventListener("click", async () => {
      if (!(await confirmed("Ask this run and its tasks to stop?", "Cancel run"))) return;
      try {
        takeRun(await ask("POST", `${path}/cancel`));
        show();
      } catch (error) {
        setBanner(`The run was not cancelled: ${error.message}`);
      }
    });
    return button;
  }

  function close() {
    leaving.abort();
    clearInterval(timer);
    feed.close();
    setBanner("");
  }

  fill(container, h("p", { class: "loading" }, "Loading…"));
  setTab("Run");
  const timer = setInterval(() => run && !run.finished && draw(), TICK);
  const feed = watchChanges({
    run: id,
    read,
    onChanges,
    onConnection: (state) => setBanner(state === "live" ? "" : "Connection lost. Reconnecting…"),
  });
  return { keys: [["u", "up to all tasks", () => document.getElementById("home").click()]], close };
}

function describe(run, stats, button) {
  return [
    h("h1", {}, h("bdi", {}, plain(run.dag_id))),
    h(
      "div",
      { class: "facts" },
      stateBadge(run.state, run.cancel_requested),
      h("span", {}, "queued ", timeAgo(run.queued_at)),
      run.started_at && timeTaken(run),
      run.attempt > 1 && h("span", {}, `attempt ${run.attempt}`),
      h("span", { class: "muted id" }, h("bdi", {}, plain(run.run_id))),
      run.tag && h("span", { class: "label" }, h("bdi", {}, plain(run.tag))),
      button,
    ),
    run.error && h("p", { class: "error" }, h("bdi", {}, plain(run.error))),
    run.note && h("p", {}, h("bdi", {}, plain(run.note))),
    stats,
    Object.keys(run.conf).length > 0 &&
      h("details", {}, h("summary", {}, "Configuration"), h("pre", { class: "result", tabindex: 0 }, JSON.stringify(run.conf, null, 2))),
  ];
}

/** The tasks counted by state; of one that was tried more than once the last try counts. */
function counts(tasks) {
  const last = new Map();
  for (const task of tasks) {
    const key = `${task.run.map_index} ${task.run.task_id}`;
    if (!last.has(key) || last.get(key).run.try_number < task.run.try_number) last.set(key, task);
  }
  const found = {};
  for (const { state } of last.values()) found[state] = (found[state] ?? 0) + 1;
  const items = Object.entries(found).map(([state, count]) => h("li", {}, stateBadge(state), ` ${count}`));
  return [h("li", {}, plural(last.size, "task")), ...items];
}

function head() {
  const names = ["State", "Task", "Timeline", "Duration"];
  return h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name))));
}

function cells(task, chart) {
  const { task_id: name, map_index: index, try_number: number } = task.run;
  return [
    h("td", {}, stateBadge(task.state, task.cancel_requested)),
    h(
      "th",
      { scope: "row" },
      h("a", { href: `${base}tasks/${encodeURIComponent(task.id)}` }, h("bdi", {}, plain(name))),
      index >= 0 && h("span", { class: "muted" }, ` [${index}]`),
      number > 1 && h("span", { class: "muted" }, ` try ${number}`),
      task.error && h("p", { class: "error" }, h("bdi", {}, plain(task.error.slice(0, 200)))),
      task.finished && resultOnDemand(task),
    ),
    chart,
    h("td", {}, timeTaken(task)),
  ];
}

/** A task's result, read when somebody wants to see it: lists are told without. */
function resultOnDemand(task) {
  const place = h("div", {}, "Loading…");
  const details = h("details", {}, h("summary", {}, "Result"), place);
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    try {
      const { result } = await getTask(task.id);
      fill(place, result ? resultView(result) : "It left none.");
    } catch (error) {
      fill(place, plain(error.message));
    }
  });
  return details;
}

/** Whether there is no such run, or it has no such id. */
const isGone = (error) => error instanceof Refusal && [400, 404].includes(error.status);

function explain(error, id, again) {
  const back = h("a", { href: base }, "All tasks");
  if (isGone(error)) {
    return notice("No such run", h("p", {}, "There is no run ", h("code", {}, plain(id)), " that your key may see."), back);
  }
  const button = h("button", { type: "button", onclick: again }, "Try again");
  return notice("This did not work", h("p", {}, plain(error.message)), button, " ", back);
}
