// Long work in short slices, so that the page answers meanwhile. Knows no page.

/** One slice lasts about this long, ms: a step more fits into a task of 50 ms on slow machines too. */
const SLICE_MS = 8;

/** Runs `step` until it says that nothing is left; the first slice at once. Returns what ends it early. */
export function inSlices(step: () => boolean, now: () => number = () => performance.now()): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const slice = () => {
    const begun = now();
    do {
      if (!step()) return;
    } while (now() - begun < SLICE_MS);
    timer = setTimeout(slice);
  };
  slice();
  return () => clearTimeout(timer);
}
