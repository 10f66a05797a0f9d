"""What a reader of a long output waits for in a browser, and what that costs the browser."""

from __future__ import annotations

import asyncio
import statistics

from tests.bench.archive import TASK, Archive
from tests.bench.browser import NO_BROWSER, signed_in
from tests.bench.figure import Figure, Goal, Metric, Sample
from tests.bench.figures.follow import ARCHIVE
from tests.bench.servers import Bench, Target

SHORT = Archive(100)
LOADS = 5  # that count; one before them warms up
PAUSE = 0.5  # seconds between the first screen and the key: a reader's hand is slower
SCROLLED = (300, 200)  # frames, and pixels in each: ten lines
STEP = 4000  # lines from stop to stop on the way through everything: what lies around a screen is fetched too
MIB = 1024 * 1024

FIRST = "async () => { const { until, complete } = probes; await until(complete); return performance.now(); }"
JUMP = """async (last) => {
  const { nextFrame, until, has, press } = probes;
  await nextFrame();  // else it would be chance whether the wait for the next frame counts
  const begun = performance.now();
  press("End");
  await until(() => has(last));
  return performance.now() - begun;
}"""
HOME = """async () => {
  const { until, has, press } = probes;
  press("Home");
  await until(() => has(0));
}"""
# A steady scroll, down and up again between the ends: how far apart the frames were that the browser drew, the slowest
# but one in a hundred.
SCROLL = """async ([frames, pixels]) => {
  const { frame, nextFrame } = probes;
  const gaps = [];
  let step = pixels;
  let before = await nextFrame();
  for (let count = 0; count < frames; count += 1) {
    const at = frame().scrollTop;
    if (at + step < 0 || at + step > frame().scrollHeight - frame().clientHeight) step = -step;
    frame().scrollTop = at + step;
    const now = await nextFrame();
    gaps.push(now - before);
    before = now;
  }
  return gaps.sort((a, b) => a - b)[Math.floor(gaps.length * 0.99)];
}"""
# Fills what the viewer keeps several times over. It goes on from a stop as soon as all rows are there.
ALL = """async (stops) => {
  const { frame, nextFrame, complete } = probes;
  for (let stop = 0; stop <= stops; stop += 1) {
    frame().scrollTop = (stop / stops) * (frame().scrollHeight - frame().clientHeight);
    do await nextFrame(); while (!complete());
  }
}"""


class Screens(Figure):
    """Times as the browser's own clock tells them."""

    name = "browser"
    beside = "100 lines"
    against = "the same page with a finished and sealed task of 100 lines"
    note = (
        f"The dashboard's page of a finished and sealed task of {ARCHIVE.lines:,} lines in headless Chromium. First"
        " screen: from the navigation's start until all rows of the screen are drawn; end: from the key End until the"
        f" last line and all others of its screen are drawn, the first time after a load; medians of {LOADS} loads a"
        f" round. Frames: the time between two, 99th percentile of {SCROLLED[0]}, while the output is scrolled by"
        f" {SCROLLED[1]} pixels a frame from its start."
        f" Heap: what JavaScript's heap holds after a garbage collection when every {STEP}th line has been"
        " stopped at on the way from the first line to the last."
    )
    metrics = (
        Metric("first", "first screen", "ms", more_is_better=False),
        Metric("end", "jump to the end", "ms", more_is_better=False),
        Metric("frame", "frames scrolling p99", "ms", more_is_better=False),
        Metric("heap", "heap", "MiB", more_is_better=False, has_ratio=False),
    )
    goals = (Goal("first", 1.5), Goal("end", 1.5), Goal("heap", 80.0))

    def missing(self, bench: Bench) -> str:
        return "" if bench.browser else NO_BROWSER

    async def prepare(self, bench: Bench) -> None:
        await ARCHIVE.folder(bench)
        await SHORT.folder(bench)

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours_in(await ARCHIVE.folder(bench)) as target:
            return await _measure(bench, target, ARCHIVE.size(bench))

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.ours_in(await SHORT.folder(bench)) as target:
            return await _measure(bench, target, SHORT.size(bench))


async def _measure(bench: Bench, target: Target, lines: int) -> Sample:
    async with signed_in(bench, target) as page:
        firsts, ends = [], []
        for _ in range(1 + LOADS):
            await page.goto(f"http://127.0.0.1:{target.port}/tasks/{TASK}")
            firsts.append(await page.evaluate(FIRST))
            await asyncio.sleep(PAUSE)
            ends.append(await page.evaluate(JUMP, lines - 1))
        await page.evaluate(HOME)
        frame = await page.evaluate(SCROLL, SCROLLED)
        await page.evaluate(ALL, max(1, lines // STEP))
        session = await page.context.new_cdp_session(page)
        await session.send("HeapProfiler.collectGarbage")
        heap = (await session.send("Runtime.getHeapUsage"))["usedSize"] / MIB
    return {
        "first": statistics.median(firsts[1:]),
        "end": statistics.median(ends[1:]),
        "frame": frame,
        "heap": heap,
    }


FIGURES = [Screens()]
