// Whether somebody looks. A browser opens six connections to a server at most, for all tabs together (HTTP/1.1): tabs
// that nobody looks at must not keep one each, or the seventh page would wait for ever.

const LEAVE = 10_000; // milliseconds out of sight after which a tab gives its connection back

const hidden = () => document.visibilityState === "hidden";

/** A signal that is aborted when the page has been out of sight for a while; `close()` stops watching. */
export function outOfSight() {
  const controller = new AbortController();
  let timer;
  const look = () => {
    clearTimeout(timer);
    if (hidden()) timer = setTimeout(() => controller.abort(), LEAVE);
  };
  document.addEventListener("visibilitychange", look);
  look();
  const close = () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
  };
  return { signal: controller.signal, close };
}

/** Resolves when the page is looked at again. Rejects when aborted. */
export function backInSight(signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      if (hidden() && !signal.aborted) return;
      document.removeEventListener("visibilitychange", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end, { once: true });
    end();
  });
}
