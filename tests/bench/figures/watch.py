"""How far a browser that follows a task is behind it."""

from __future__ import annotations

import asyncio
import time

from tests.bench.archive import TASK
from tests.bench.browser import NO_BROWSER, SCREEN, signed_in
from tests.bench.figure import Figure, Goal, Metric, Sample
from tests.bench.load import Connection, LoadError, connections
from tests.bench.servers import Bench, Target
from tests.bench.summary import percentile

RATE, SLOW_RATE = 10_000, 50  # lines a second
APPENDS = 50  # a second
TALL = 2700  # pixels of the screen on which everything is read at the end: that saves screens
SECONDS = 5.0  # at least, however short throughput is measured
PADDING = "x" * 60  # a line has some 80 bytes

# Each line begins with its number and the time at which it was sent. In each frame the time that has passed since the
# newest line on the screen was sent is noted, but only when it is a new one.
WATCH = """() => {
  const { frame, nextFrame } = probes;
  const lags = [];
  let newest = -1;
  window.watching = true;
  window.watched = (async () => {
    while (window.watching) {
      await nextFrame();
      const texts = frame().querySelectorAll(".row:not(.coming) .text");
      const [number, time] = (texts[texts.length - 1]?.textContent ?? "").split(" ").map(Number);
      if (number > newest) { lags.push(Date.now() - time); newest = number; }
    }
    return lags;
  })();
}"""
STOP = "async (last) => { await probes.until(() => probes.has(last)); window.watching = false; return window.watched; }"
# Reads everything from the end to the beginning, and counts the lines that stand where they belong.
COUNT = """async () => {
  const { frame, nextFrame, complete, press } = probes;
  const seen = new Set();
  for (let top = Infinity; top > 0; ) {
    do await nextFrame(); while (!complete());
    for (const row of frame().querySelectorAll(".row")) {
      if (row.querySelector(".text").textContent.startsWith(`${row.dataset.n} `)) seen.add(row.dataset.n);
    }
    const first = Number(frame().querySelector(".row").dataset.n);
    if (first === 0) break;
    if (first < top) press("PageUp");
    top = Math.min(top, first);
  }
  return seen.size;
}"""


class Watch(Figure):
    """Lag and loss."""

    name = "browser-follow"
    beside = f"{SLOW_RATE} lines/s"
    against = f"the same page with a task that prints {SLOW_RATE} lines/s; no ratio: what counts are our own numbers"
    note = (
        f"A task that prints {RATE:,} lines/s of some 80 bytes, {APPENDS} appends a second, for {SECONDS:.0f} s or"
        " more, followed on the dashboard's page in headless Chromium. Lag: how old the newest line on the screen is"
        " when it is first there, of all frames that bring one, from the moment in which its append was sent (the"
        " machine's clock is the same). Lost: how many lines do not stand in their place on the page afterwards."
    )
    metrics = (
        Metric("p50", "lag p50", "ms", more_is_better=False, has_ratio=False),
        Metric("max", "lag max", "ms", more_is_better=False, has_ratio=False),
        Metric("lost", "lost", "lines", more_is_better=False, has_ratio=False),
    )
    goals = (Goal("max", 1000.0), Goal("lost", 0.0))

    def missing(self, bench: Bench) -> str:
        return "" if bench.browser else NO_BROWSER

    async def ours(self, bench: Bench) -> Sample:
        return await _measure(bench, RATE)

    async def yardstick(self, bench: Bench) -> Sample:
        return await _measure(bench, SLOW_RATE)


async def _measure(bench: Bench, rate: int) -> Sample:
    with bench.ours() as target:
        async with connections(target.port, 1) as (client,), signed_in(bench, target) as page:
            await client.ask(target.post("/v1/tasks", b'{"id": "%b"}' % TASK.encode(), "application/json"))
            await page.goto(f"http://127.0.0.1:{target.port}/tasks/{TASK}")
            await page.get_by_text("No output yet.").wait_for()
            await page.evaluate(WATCH)
            printed = await _print(target, client, rate, max(SECONDS, bench.seconds))
            lags: list[float] = sorted(await page.evaluate(STOP, printed - 1))
            if not lags:
                raise LoadError("the page showed no line while the task printed")
            await page.set_viewport_size({"width": SCREEN[0], "height": TALL})
            seen: int = await page.evaluate(COUNT)
    return {"p50": percentile(lags, 0.5), "max": lags[-1], "lost": float(printed - seen)}


async def _print(target: Target, client: Connection, rate: int, seconds: float) -> int:
    """Print at a rate, each append at its time; how many lines."""
    each, printed, start = rate // APPENDS, 0, time.perf_counter()
    for turn in range(round(seconds * APPENDS)):
        await asyncio.sleep(start + turn / APPENDS - time.perf_counter())
        now = time.time_ns() // 1_000_000
        lines = "".join(f"{number} {now} {PADDING}\n" for number in range(printed, printed + each))
        await client.ask(target.post(f"/v1/tasks/{TASK}/output", lines.encode()))
        printed += each
    return printed


FIGURES = [Watch()]
