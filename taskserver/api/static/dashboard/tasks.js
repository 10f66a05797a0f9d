// The list of tasks: live, filtered, a page at a time.

import { Refusal, ask, base } from "./api.js";
import { announce, arrange, fill, h, refill, setText } from "./dom.js";
import { newer, watchChanges } from "./feed.js";
import { filterForm, nothingYet, nothingFound } from "./listparts.js";
import { readFilter, passes } from "./filter.js";
import { plain, plural, title } from "./format.js";
import { hint, labelList, listAddress, stateBadge, timeAgo, timeTaken } from "./parts.js";
import { setTab } from "./tab.js";

const PAGE = 50;
const MOST = 500; // rows that are read again at once, and up to which older ones come by scrolling alone

/** Show the tasks that pass the filter in the address. */
export function showTasks(container, { setBanner, navigate }) {
  const leaving = new AbortController();
  const body = h("tbody", {});
  const summary = h("p", { class: "muted", id: "summary" });
  const older = h("button", { type: "button", class: "more", hidden: true }, "Older tasks");
  const table = h("table", { class: "tasks", "aria-describedby": "summary" }, head(), body);
  const place = h("div", { class: "list" }, h("p", { class: "loading" }, "Loading…"));
  const form = filterForm(readFilter(location.search), change);

  let filter = readFilter(location.search);
  let rows = new Map(); // id → {task, element}
  let cursor = null;
  let troubled = false;
  let news = new Map(); // what the feed told since the reading under way began: id → task, or null if it was deleted

  function query(more) {
    return new URLSearchParams({ ...filter, ...more });
  }

  async function read(signal) {
    news = new Map();
    const asked = filter;
    const limit = Math.min(MOST, Math.max(PAGE, rows.size));
    try {
      const page = await ask("GET", `tasks?${query({ limit })}`, { signal });
      if (asked !== filter) return;
      if (troubled) setBanner("");
      troubled = false;
      take(page, true);
    } catch (error) {
      if (!signal.aborted) explain(error);
    }
  }

  async function readOlder() {
    older.disabled = true;
    const [asked, from] = [filter, cursor];
    try {
      const page = await ask("GET", `tasks?${query({ limit: PAGE, cursor: from })}`, { signal: leaving.signal });
      if (asked === filter && cursor === from) take(page, false);
    } catch (error) {
      if (!leaving.signal.aborted) setBanner(error.message);
    } finally {
      older.disabled = false;
    }
  }

  /** Show a page; `whole`: in the place of everything. */
  function take(page, whole) {
    const before = rows;
    const found = page.tasks.map((task) => newer(task, news.get(task.id))).filter((task) => !gone(task));
    cursor = page.cursor;
    if (whole) rows = new Map();
    for (const task of found) put(task, before.get(task.id));
    if (whole) for (const task of news.values()) if (task && belongs(task)) put(task, before.get(task.id));
    show();
  }

  const gone = (task) => news.get(task.id) === null || !passes(task, filter);

  /** Whether a task stands among those shown: a page that is not there yet may begin with it. */
  function belongs(task) {
    const last = [...rows.values()].at(-1);
    return passes(task, filter) && (cursor === null || !last || task.created_at >= last.task.created_at);
  }

  function put(task, known = rows.get(task.id)) {
    const entry = known ?? { element: h("tr", {}) };
    const fresh = known ? newer(known.task, task) : task;
    if (fresh !== entry.task) refill(entry.element, cells(fresh));
    entry.task = fresh;
    rows.set(task.id, entry);
  }

  function onChanges({ tasks, deleted }) {
    const had = rows.size;
    for (const task of tasks) {
      news.set(task.id, task);
      if (rows.has(task.id) ? passes(task, filter) : belongs(task)) put(task);
      else rows.delete(task.id);
    }
    for (const id of deleted) {
      news.set(id, null);
      rows.delete(id);
    }
    if (rows.size > had) announce(plural(rows.size - had, "new task"));
    if (rows.size > had && rows.size > 2 * MOST) feed.readAll(); // a page that stays open for weeks holds the newest only
    show();
  }

  function show() {
    if (!rows.size) {
      fill(place, Object.keys(filter).length ? nothingFound(() => change({}, true)) : nothingYet());
      setTab("Tasks");
      return;
    }
    if (!table.isConnected) fill(place, summary, table, older);
    const sorted = [...rows.values()].sort((a, b) => (a.task.created_at < b.task.created_at ? 1 : -1));
    arrange(body, sorted.map(({ element }) => element));
    const running = sorted.filter(({ task }) => task.state === "running").length;
    setText(summary, `${plural(rows.size, "task")} shown${cursor ? ", the newest" : ""}; ${running} running`);
    setTab(running ? `${running} running` : "Tasks", running ? "running" : "idle");
    older.hidden = cursor === null;
  }

  function explain(error) {
    const why = error instanceof Refusal && error.status === 403 ? "Sign in with a key that has the scope “read”." : "";
    const again = h("button", { type: "button", onclick: () => read(leaving.signal) }, "Try again");
    troubled = true;
    if (rows.size) setBanner(`${error.message}. What you see may be out of date.`);
    else fill(place, hint("The tasks cannot be shown", h("p", {}, plain(error.message), ". ", why), again));
  }

  /** Filter otherwise; `fresh`: the form does not know yet. */
  function change(wanted, fresh = false) {
    if (fresh) return navigate(listAddress(wanted));
    filter = wanted;
    rows = new Map();
    cursor = null;
    history.replaceState(null, "", listAddress(filter));
    read(leaving.signal);
  }

  older.addEventListener("click", readOlder);
  const sentinel = new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting && cursor !== null && rows.size < MOST && !older.disabled) readOlder();
  });
  sentinel.observe(older);
  fill(container, h("h1", {}, "Tasks"), form, place);
  setTab("Tasks");
  const feed = watchChanges({
    read,
    onChanges,
    onConnection: (state) => setBanner(state === "live" ? "" : "Connection lost. Reconnecting…"),
  });
  return {
    keys: [
      ["/", "find a task", () => form.querySelector("input").focus()],
      ["j", "next task", () => step(body, 1)],
      ["k", "previous task", () => step(body, -1)],
    ],
    close() {
      leaving.abort();
      sentinel.disconnect();
      feed.close();
      setBanner("");
    },
  };
}

/** Move the focus to the next row's link, or the one before. */
function step(body, by) {
  const links = [...body.querySelectorAll("th a")];
  const now = links.indexOf(document.activeElement?.closest("tr")?.querySelector("th a"));
  links[now < 0 ? 0 : Math.min(links.length - 1, Math.max(0, now + by))]?.focus();
}

function head() {
  const names = ["State", "Task", "Started", "Duration"];
  return h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name))));
}

function cells(task) {
  const id = encodeURIComponent(task.id);
  return [
    h("td", {}, stateBadge(task.state, task.cancel_requested)),
    h(
      "th",
      { scope: "row" },
      h("a", { href: `${base}tasks/${id}` }, h("bdi", {}, title(task))),
      task.name && h("span", { class: "muted id" }, task.id),
      task.run && h("a", { class: "label", href: `${base}runs/${task.run.id}` }, "run"),
      labelList(task.labels, (key, value) => listAddress({ label: `${key}=${value}` })),
      task.error && h("p", { class: "error" }, h("bdi", {}, plain(task.error.slice(0, 200)))),
    ),
    h("td", {}, task.started_at ? timeAgo(task.started_at) : h("span", { class: "muted" }, "not yet")),
    h("td", {}, timeTaken(task)),
  ];
}
