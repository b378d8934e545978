// What is asked again and again, as long as somebody looks.
import { tell } from "./dom.js";

/** Does something each so many milliseconds, never twice at once; gives what ends it. */
export function every(milliseconds, act) {
  let isOver = false;
  let timer = null;
  const next = (took) => {
    timer = setTimeout(round, Math.max(milliseconds, 5 * took)); // a slow answer is asked for less often
  };
  const round = async () => {
    const begun = performance.now();
    if (document.visibilityState === "visible") {
      try {
        await act();
      } catch (error) {
        if (!isOver) tell(error.message, true);
      }
    }
    if (!isOver) next(performance.now() - begun);
  };
  next(0);
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}
