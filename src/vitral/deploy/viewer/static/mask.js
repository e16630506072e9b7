// The mask mode: remove patches by painting and see the answer change, or find a few patches whose removal changes it.

import { path } from "viewer/api.js";
import { el, percent } from "viewer/dom.js";
import { removalChoice, removalOf, sentence } from "viewer/explanation.js";
import { fromSpans, toSpans } from "viewer/state.js";

const FEW = 80; // patches up to which the search tries every one at each step and needs no map to guide it
const STEP = 90; // ms for each patch found, when they are shown
const LONGEST = 2400; // ms for all of them
const still = matchMedia("(prefers-reduced-motion: reduce)");
const HINT = "Paint over the picture to remove patches. To put them back, begin on a removed one, or hold Alt or the right button. "
  + "Keys: arrows and space.";
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export function mount(root, app) {
  const count = el("p", { class: "count", "aria-live": "off" });
  const bars = el("ol", { class: "moved" });
  const flips = el("button", { type: "button", class: "plain strong", text: "Fewest patches that flip it", onclick: () => find().catch(app.fail) });
  const words = el("p", { class: "found", hidden: true });
  const removal = el("div", { class: "option" });
  const button = (text, title, run) => el("button", { type: "button", class: "plain", text, title, onclick: run });
  const acts = el("div", { class: "acts" },
    button("Clear", "put all patches back", () => change(new Set())),
    button("Invert", "remove the patches that are there and put back the others", () => change(new Set(every().filter((i) => !masked().has(i))))),
    flips);
  const hint = el("p", { class: "note", text: HINT });
  const why = el("p", { class: "note", hidden: true });
  // Buttons stand above everything that grows and shrinks, so that none moves away under the pointer.
  const body = el("div", { class: "masking" }, count, acts, removal, words, bars, hint);
  root.append(el("div", { class: "pane-head" }, el("h2", { text: "Without some patches" })), why, body);

  let look = null;
  let model = null;
  let cursor = null; // [row, column] that the keys move
  let over = null; // where the pointer is
  let erasing = false; // in this stroke
  let [sent, waiting] = [null, false]; // the pending request; whether another follows
  let shown = null; // the request whose answer is shown
  let playing = null; // AbortController of a search and of showing what it found
  let ends = [];
  const now = () => app.state.get();
  const grid = () => look.removal.grid;
  const every = () => Array.from({ length: grid()[0] * grid()[1] }, (_, i) => i);
  const masked = () => fromSpans(now().masked, grid()[0] * grid()[1]);

  function change(next, { replace = false } = {}) {
    stop();
    words.hidden = true;
    app.state.set({ masked: toSpans(next) }, { replace });
  }

  function toggle([row, column], gone, replace) {
    const patch = row * grid()[1] + column;
    const next = masked();
    if (gone) next.add(patch);
    else next.delete(patch);
    change(next, { replace });
  }

  function marks() {
    app.picture.marks({ masked: masked(), maskGrid: grid(), maskExtent: look.removal.extent, cursor: over ?? cursor });
  }

  /** Get the answer for the masked patches; of requests made meanwhile only the last is sent. */
  async function ask() {
    const question = JSON.stringify({ removed: [...masked()].sort((a, b) => a - b), removal: removalOf(now(), model) });
    const { model: number, image } = now();
    const next = `${number} ${image} ${question}`;
    if (next === shown) return;
    if (sent) return void (waiting = true);
    sent = next;
    const start = performance.now();
    try {
      const answer = await app.api.post(path(number, image, "mask"), JSON.parse(question));
      performance.measure("viewer:mask", { start });
      if (ends.length) {
        shown = next;
        draw(answer);
      }
    } catch (error) {
      app.fail(error);
    } finally {
      sent = null;
      if (waiting && ends.length) {
        waiting = false;
        ask();
      }
    }
  }

  /** The classes in their original order, each as a bar with a tick at its original value. */
  function draw({ before, after, answer }) {
    const rows = new Map([...bars.children].map((row) => [row.dataset.index, row]));
    bars.replaceChildren(...after.map(({ index, label, p }, i) => {
      const row = rows.get(String(index)) ?? el("li", { "data-index": index },
        el("span", { class: "label", text: label }), el("span", { class: "number" }), el("span", { class: "change" }),
        el("i", { class: "track", "aria-hidden": "true" }, el("i"), el("b")));
      row.classList.toggle("leading", index === answer.index);
      row.querySelector(".number").textContent = percent(p);
      const by = p - before[i].p;
      const change = row.querySelector(".change");
      change.textContent = Math.abs(by) < 0.0005 ? "±0" : `${by > 0 ? "+" : "−"}${(100 * Math.abs(by)).toFixed(1)}`;
      change.classList.toggle("down", by < 0);
      row.querySelector(".track > i").style.width = `${100 * p}%`;
      row.querySelector(".track > b").style.left = `${100 * before[i].p}%`;
      return row;
    }));
    const flipped = answer.index !== before[0].index;
    body.classList.toggle("flipped", flipped);
    app.announce(`${masked().size} patches removed: ${answer.label}, ${percent(answer.p)}${flipped ? `, no longer ${before[0].label}` : ""}`);
  }

  function say() {
    const [n, all] = [masked().size, every().length];
    count.textContent = n ? `${n} of ${all} patches removed (${Math.round((100 * n) / all)} %)` : `All ${all} patches are there`;
  }

  async function find() {
    stop();
    playing = new AbortController();
    const { signal } = playing;
    const guide = every().length > FEW ? guiding() : null;
    const { model: number, image } = now();
    words.hidden = false;
    words.className = "found waiting";
    words.textContent = guide ? `Searching, in the order of ${model.methods.find(({ name }) => name === guide).said}` : "Searching: each step tries every patch";
    flips.disabled = true;
    try {
      const question = path(number, image, "counterfactual", { method: guide, removal: removalOf(now(), model) });
      const found = await app.busy(app.api.get(question, { signal }));
      if (signal.aborted) return;
      words.textContent = "";
      await animate(found, signal);
      if (signal.aborted) return;
      words.className = "found";
      words.textContent = sentence(found.words);
      app.announce(found.words);
    } catch (error) {
      if (error.name === "AbortError") return;
      words.className = "found";
      words.textContent = error.message;
    } finally {
      flips.disabled = false;
    }
  }

  /** The chosen method, if it takes a class; else the first that does. */
  function guiding() {
    const able = model.methods.filter(({ why, takes }) => !why && takes.includes("target")).map(({ name }) => name);
    return able.includes(now().method) ? now().method : able[0] ?? null;
  }

  /** Show the patches in the order of the search, then only the necessary ones. */
  async function animate({ steps, patches }, signal) {
    if (!still.matches) {
      const pause = Math.min(STEP, LONGEST / steps.length);
      for (let i = 1; i <= steps.length && !signal.aborted; i++) {
        app.state.set({ masked: toSpans(steps.slice(0, i)) }, { replace: true });
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
    if (!signal.aborted) app.state.set({ masked: toSpans(patches) });
  }

  function stop() {
    playing?.abort();
    playing = null;
  }

  function keys(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest?.("button, input, select, dialog, [role=radio]")) return;
    const move = MOVES[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const [h, w] = grid();
    const [row, column] = cursor ?? [Math.floor(h / 2), Math.floor(w / 2)];
    over = null;
    if (move) {
      const held = (value, side) => Math.max(0, Math.min(side - 1, value));
      cursor = cursor ? [held(row + move[0], h), held(column + move[1], w)] : [row, column];
      app.announce(`patch in row ${cursor[0]}, column ${cursor[1]}, ${masked().has(cursor[0] * w + cursor[1]) ? "removed" : "there"}`);
    } else {
      cursor = [row, column];
      toggle(cursor, !masked().has(row * w + column), false);
    }
    marks();
  }

  function listen() {
    document.addEventListener("keydown", keys, true); // before those of the page, which move the query
    ends = [
      () => document.removeEventListener("keydown", keys, true),
      app.picture.on("hover", (patch) => {
        over = patch && [patch.row, patch.column];
        marks();
      }),
      app.picture.on("paint", ({ row, column, erase, first }) => {
        if (first) erasing = erase || masked().has(row * grid()[1] + column);
        cursor = [row, column];
        toggle(cursor, !erasing, !first);
      }),
    ];
  }

  return {
    show(state, newLook, changed) {
      if (newLook !== look || changed.has("model")) {
        stop();
        [look, model, shown, cursor, over] = [newLook, app.about.models[state.model], null, null, null];
        bars.replaceChildren();
        words.hidden = true;
        app.picture.key(null);
        why.textContent = model.removals.mean ?? "";
        why.hidden = !model.removals.mean;
        body.hidden = Boolean(model.removals.mean);
      }
      app.picture.paint({ values: null, grid: grid(), extent: look.removal.extent });
      if (model.removals.mean) return;
      if (!ends.length) listen();
      const choice = removalChoice(app, model);
      choice.show(removalOf(state, model));
      if (changed.has("removal") || !removal.childElementCount) removal.replaceChildren(el("span", { text: "Removed patches are" }), choice.root);
      say();
      marks();
      ask();
    },
    hide() {
      stop();
      ends.forEach((end) => end());
      ends = [];
      over = null;
    },
  };
}
