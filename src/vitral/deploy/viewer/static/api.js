// Answers of the server, or in an exported page the recorded ones.

const KEPT = 160; // answers in the cache
export const LOST = "The server does not answer; see whether `vitral view` still runs.";
const recorded = JSON.parse(document.getElementById("recorded")?.textContent ?? "null");
const kept = new Map(); // path -> answer, the most recently used at the end
const asked = new Map(); // path -> {promise, waiting, controller} of pending requests

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

export const api = {
  exported: recorded !== null,

  about: () => api.get("/api/about"),

  /** Whether `get` answers from the cache. */
  has: (path) => (recorded ? path in recorded : kept.has(path)),

  /** The answer to a path, cached; `fresh` asks again. Aborting does not cancel a request that others wait for. */
  async get(path, { signal, fresh = false } = {}) {
    signal?.throwIfAborted();
    if (recorded) {
      if (path in recorded) return recorded[path];
      throw new ApiError(recorded.missing ?? "This page does not hold that; `vitral view` shows it.", 404);
    }
    if (fresh) return fetched(path, { signal });
    if (kept.has(path)) {
      const answer = kept.get(path);
      kept.delete(path);
      kept.set(path, answer);
      return answer;
    }
    return shared(path, signal);
  },

  post: (path, body, { signal } = {}) =>
    fetched(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    }),

  upload(file, { signal } = {}) {
    const form = new FormData();
    form.append("file", file, file.name || "pasted");
    return fetched("/api/images", { method: "POST", body: form, signal });
  },

  pictureURL(id, side) {
    const path = `/api/images/${id}/picture${side ? `?side=${side}` : ""}`; // without a side as large as the page shows it
    return recorded ? recorded[path] ?? "" : `.${path}`;
  },
};

/** "/api/models/0/images/ab/look" and its like; parameters that are null or undefined are left out. */
export function path(model, image, what, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  const query = given.map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
  return `/api/models/${model}/images/${image}/${what}${query && `?${query}`}`;
}

function shared(path, signal) {
  let question = asked.get(path);
  if (!question) {
    const controller = new AbortController();
    const promise = fetched(path, { signal: controller.signal })
      .then((answer) => {
        kept.set(path, answer);
        if (kept.size > KEPT) kept.delete(kept.keys().next().value);
        return answer;
      })
      .finally(() => asked.get(path) === question && asked.delete(path));
    promise.catch(() => {}); // every waiter may have gone
    question = { promise, controller, waiting: 0 };
    asked.set(path, question);
  }
  question.waiting++;
  return new Promise((resolve, reject) => {
    const left = () => {
      if (--question.waiting === 0) {
        asked.delete(path);
        question.controller.abort();
      }
      reject(signal.reason);
    };
    signal?.addEventListener("abort", left, { once: true });
    question.promise.then(resolve, reject).finally(() => signal?.removeEventListener("abort", left));
  });
}

async function fetched(path, options) {
  let response;
  try {
    response = await fetch(`.${path}`, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(LOST, 0);
  }
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return {};
  });
  if (!response.ok) throw new ApiError(answer.error ?? `The server answered ${response.status}.`, response.status);
  return answer;
}

/** Base64 to bytes. */
export function bytes(text) {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

/** A packed map {grid, extent, low, high, even, data} with `values`, a Float32Array in the map's own unit, in place of data. */
export function unpack({ grid, extent, low, high, even, data }) {
  const values = Float32Array.from(bytes(data), (byte) => low + (byte / 255) * (high - low));
  return { grid, extent, low, high, even, values };
}
