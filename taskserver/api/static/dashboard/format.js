// How states, times and durations are written.

const FINAL = new Set(["success", "failed", "cancelled", "interrupted"]);
const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export const STATES = ["queued", "running", ...FINAL];

export const isFinal = (state) => FINAL.has(state);

/** A duration in seconds as two units at most: "0.4 s", "12 s", "3 m 05 s", "2 h 10 m", "3 d 4 h". */
export function duration(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} m ${two(whole % MINUTE)} s`;
  if (whole < DAY) return `${Math.floor(whole / HOUR)} h ${two(Math.floor((whole % HOUR) / MINUTE))} m`;
  return `${Math.floor(whole / DAY)} d ${Math.floor((whole % DAY) / HOUR)} h`;
}

/** How long something took, or takes so far; "" if it has not begun. Times are as the server writes them. */
export function elapsed(startedAt, finishedAt, now) {
  if (!startedAt) return "";
  return duration(((finishedAt ? Date.parse(finishedAt) : now) - Date.parse(startedAt)) / 1000);
}

/** "just now", "5 m ago", "3 h ago", "2 d ago". */
export function ago(time, now) {
  const seconds = (now - Date.parse(time)) / 1000;
  if (seconds < 10) return "just now";
  if (seconds < MINUTE) return `${Math.floor(seconds)} s ago`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} m ago`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h ago`;
  return `${Math.floor(seconds / DAY)} d ago`;
}

const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** The exact time in the reader's zone and manner. */
export const exact = (time) => EXACT.format(new Date(time));

/** Text of somebody else's in one line, without what would reorder or hide the text around it (Unicode's UAX 9). */
export const plain = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

/** What to call a task: its name, or its id if it has none. */
export const title = (task) => plain(task.name) || task.id;

export const plural = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;
