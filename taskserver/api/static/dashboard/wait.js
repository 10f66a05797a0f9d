// Waiting for a time.

/** Wait. Rejects with the signal's reason when it is aborted. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** The same, but it ends early without an error. */
export const pause = (milliseconds, signal) => sleep(milliseconds, signal).catch(() => {});
