// Feedback: work in progress, errors, and for screen readers what is shown.

const BUSY_AFTER = 80; // ms before work is shown as such
const SAY_AFTER = 250; // ms without a change before the last one is announced

let working = 0;
let saying = null;

/** Shows a busy sign until the promise is settled; returns the promise. */
export function busy(promise) {
  let counted = 0;
  const count = (by) => {
    working += by;
    document.documentElement.setAttribute("aria-busy", working > 0);
  };
  const timer = setTimeout(() => count((counted = 1)), BUSY_AFTER);
  const end = () => {
    clearTimeout(timer);
    count(-counted);
  };
  promise.then(end, end);
  return promise;
}

/** Shows an error as a sentence in a bar that can be dismissed; an aborted request is no error. */
export function fail(error) {
  if (error.name === "AbortError") return;
  if (error.name !== "ApiError") console.error(error);
  refuse(error.message);
}

export function refuse(sentence) {
  const bar = document.getElementById("error");
  bar.querySelector("p").textContent = sentence;
  bar.hidden = false;
}

export function dismiss() {
  document.getElementById("error").hidden = true;
}

/** Announces a text to screen readers once changes have stopped. */
export function announce(text) {
  clearTimeout(saying);
  saying = setTimeout(() => (document.getElementById("live").textContent = text), SAY_AFTER);
}
