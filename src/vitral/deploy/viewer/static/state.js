// The page's state, one frozen object, mirrored in the URL's fragment, so that links and the back button work.

const MODES = ["attention", "explanation", "mask", "compare", "inspect", "neighbours"];
const WRITE_EVERY = 150; // ms between writes, on average; browsers throttle pages that write their URL much more often
const AT_ONCE = 20; // history entries that may follow each other faster, so that quick choices get entries of their own
const REST = 200; // ms without a change before a change without a history entry is written: writing takes longer than drawing

const oneOf = (...values) => (text) => (values.includes(text) ? text : undefined);
const matching = (pattern) => (text) => (pattern.test(text) ? text : undefined);
const count = (text) => (/^\d{1,6}$/.test(text) ? Number(text) : undefined);

// name: [what it is at first, how its text is read (undefined: not a legal value)]
const FIELDS = {
  image: [null, matching(/^[\w-]{1,64}$/)],
  model: [0, count],
  mode: ["attention", oneOf(...MODES)],
  query: ["own", matching(/^(own|cls|mean|t\d{1,4}|\d{1,5},\d{1,5})$/)],
  layer: [null, count],
  head: ["mean", (text) => (text === "mean" ? text : count(text))],
  style: ["light", oneOf("light", "heat")],
  method: ["relevance", matching(/^[a-z_]{1,40}$/)],
  target: [null, count],
  left: [null, matching(/^\d{1,3}:[a-z_]{1,40}$/)],
  right: [null, matching(/^\d{1,3}:[a-z_]{1,40}$/)],
  masked: ["", matching(/^\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*$/)],
  removal: ["mean", matching(/^[a-z]{1,10}$/)],
  inspected: ["p0", matching(/^[pn]\d{1,3}$/)],
};
export const START = Object.freeze(Object.fromEntries(Object.entries(FIELDS).map(([name, [start]]) => [name, start])));

let fit = (values) => values; // replaces values that cannot be shown
let now = fromFragment(location.hash);
let due = null; // {push} of a pending write
let timer = null;
let written = -Infinity;
let spare = AT_ONCE; // of AT_ONCE those that are left, one more every WRITE_EVERY
const listeners = new Set();

export const state = {
  get: () => now,
  /** Change fields; a new step of the history, unless `replace`. Changes that come in a flood make one step together. */
  set(patch, { replace = false } = {}) {
    for (const name of Object.keys(patch)) if (!(name in FIELDS)) throw new Error(`state has no field ${name}`);
    const before = now;
    if (!become({ ...now, ...patch })) return;
    if (due?.push && !replace && spared() >= 1) write(before); // the choice before has its own step
    later(!replace);
  },
  /** From now on every state is one that `fits(values)` returns, and the address is mended where it says otherwise. */
  keepTo(fits) {
    fit = fits;
    reread();
  },
  /** `fn(now, changed: Set of names)` after every change. Returns a function that ends it. */
  subscribe(fn) {
    listeners.add(fn);
    return () => listeners.delete(fn);
  },
};

function become(wanted) {
  const next = fit(wanted);
  const changed = new Set(Object.keys(FIELDS).filter((name) => next[name] !== now[name]));
  if (!changed.size) return false;
  now = Object.freeze(next);
  for (const fn of [...listeners]) fn(now, changed);
  return true;
}

function later(push) {
  due = { push: push || Boolean(due?.push) };
  clearTimeout(timer);
  timer = setTimeout(() => write(), due.push ? Math.max(0, written + WRITE_EVERY - performance.now()) : REST);
}

/** How many steps may be written at once now. */
const spared = () => Math.min(AT_ONCE, spare + (performance.now() - written) / WRITE_EVERY);

function write(shown = now) {
  if (!due) return;
  const { push } = due;
  due = null;
  spare = Math.max(0, spared() - 1);
  written = performance.now();
  const address = toFragment(shown) || location.pathname + location.search;
  if (push) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

function reread() {
  due = null;
  become(fromFragment(location.hash));
  if (toFragment(now) !== location.hash) later(false);
}
addEventListener("popstate", reread);
addEventListener("hashchange", reread);
addEventListener("pagehide", () => write());

/** "#query=3,4&layer=5" of all that is not as at first; "" of the start itself. */
export function toFragment(values) {
  const parts = Object.keys(FIELDS)
    .filter((name) => values[name] !== START[name])
    .map((name) => `${name}=${encodeURIComponent(values[name]).replaceAll("%2C", ",").replaceAll("%3A", ":")}`);
  return parts.length ? `#${parts.join("&")}` : "";
}

/** What is no legal value is as at first: a link that was cut short still opens. */
function fromFragment(fragment) {
  const found = { ...START };
  for (const part of fragment.replace(/^#/, "").split("&")) {
    const [name, text = ""] = part.split("=");
    if (!Object.hasOwn(FIELDS, name) || !text) continue;
    try {
      found[name] = FIELDS[name][1](decodeURIComponent(text)) ?? START[name];
    } catch (error) {
      if (!(error instanceof URIError)) throw error;
    }
  }
  return Object.freeze(found);
}

/** {0,1,2,3,7} to "0-3,7". */
export function toSpans(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const spans = [];
  for (const n of sorted) {
    const last = spans.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else spans.push([n, n]);
  }
  return spans.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(",");
}

/** "0-3,7" to {0,1,2,3,7}; numbers from `limit` on are left out. */
export function fromSpans(text, limit) {
  const found = new Set();
  for (const span of text ? text.split(",") : []) {
    const [from, to = from] = span.split("-").map(Number);
    for (let n = from; n <= Math.min(to, limit - 1); n++) found.add(n);
  }
  return found;
}
