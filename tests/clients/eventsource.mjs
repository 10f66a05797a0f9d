// Follows an execution with the npm package `eventsource` and prints a JSON object for each thing that happens.
// Usage: PACKAGES=<folder> URL=<url> KEY=<API key> node eventsource.mjs
import { createRequire } from "node:module";

const { EventSource } = createRequire(`${process.env.PACKAGES}/`)("eventsource");
const say = (what) => console.log(JSON.stringify(what));

const source = new EventSource(process.env.URL, {
  fetch: (url, init) => {
    const last = init.headers["Last-Event-ID"] ?? null;
    say({ asks: last });
    return fetch(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${process.env.KEY}` } });
  },
});
for (const name of ["initiated", "processing", "completed", "failed", "timeout", "end"]) {
  source.addEventListener(name, (event) => say({ event: name, id: event.lastEventId, data: JSON.parse(event.data) }));
}
source.addEventListener("open", () => say({ open: source.readyState }));
source.addEventListener("error", (error) => say({ error: error.code ?? null, closed: source.readyState === 2 }));
