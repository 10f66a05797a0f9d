// What a list shows: the filter of the address, as the server takes it (PROTOCOLS.md, A4), and whether a task passes it.

const FIELDS = ["state", "text", "name", "label"];

/** The filter in a query string: only known fields, without empty ones. */
export function readFilter(search) {
  const query = new URLSearchParams(search);
  return Object.fromEntries(FIELDS.map((name) => [name, query.get(name)?.trim() ?? ""]).filter(([, value]) => value));
}

const ASCII_UPPER = /[A-Z]/g;
const lower = (text) => text.replace(ASCII_UPPER, (letter) => letter.toLowerCase());

/** Whether the server would have a task in a list with this filter. */
export function passes(task, filter) {
  const labels = Object.entries(task.labels).map(([key, value]) => `${key}=${value}`);
  if (filter.state && task.state !== filter.state) return false;
  if (filter.name && task.name !== filter.name) return false;
  if (filter.label && !labels.includes(filter.label)) return false;
  return !filter.text || [task.name, task.id, ...labels].some((text) => lower(text).includes(lower(filter.text)));
}
