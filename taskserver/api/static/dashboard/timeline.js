// When the tasks of a run waited and worked: one bar each, on a common scale.

import { svg } from "./dom.js";
import { duration } from "./format.js";

const WIDTH = 1000;
const HEIGHT = 20;
const LEAST = 4; // what is too short to be seen has this width

/** The time from which to which a run's bars reach: `{begin, end}` in milliseconds. */
export function spanOf(tasks, now) {
  const begin = Math.min(...tasks.map((task) => Date.parse(task.created_at)));
  const end = Math.max(...tasks.map((task) => (task.finished_at ? Date.parse(task.finished_at) : now)));
  return { begin, end: Math.max(end, begin + 1) };
}

/** The bar of a task; the numbers beside it say the same. */
export function bar(task, { begin, end }, now) {
  const at = (time) => ((time - begin) / (end - begin)) * WIDTH;
  const created = Date.parse(task.created_at);
  const ended = task.finished_at ? Date.parse(task.finished_at) : now;
  const started = task.started_at ? Date.parse(task.started_at) : ended;
  const part = (name, from, to) =>
    svg("rect", {
      class: name,
      x: Math.min(at(from), WIDTH - LEAST),
      width: Math.max(at(to) - at(from), LEAST),
      y: 3,
      height: HEIGHT - 6,
      rx: 3,
    });
  return svg(
    "svg",
    {
      class: "bar-chart",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `waited ${duration((started - created) / 1000)}, took ${duration((ended - started) / 1000)}`,
    },
    started > created && part("waited", created, started),
    task.started_at && part(`worked ${task.state}`, started, ended),
  );
}
