// The keyboard: one table for what keys do and for their help.

import { chosen, patchOf } from "viewer/attention.js";
import { el } from "viewer/dom.js";
import { state } from "viewer/state.js";

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const within = (value, count) => Math.max(0, Math.min(count - 1, value));

/**
 * What each key does: {keys: [event.key ...], shown, words, run(event)}. `lookNow()` is the look or null; `actions` are play, save, help,
 * reset and, where pictures can come in, pick.
 */
export function keysOf(lookNow, { play, save, help, reset, pick }) {
  const mode = (value) => () => state.set({ mode: state.get().mode === value ? "attention" : value });
  const moving = (fn) => (event) => lookNow()?.layers.length && fn(lookNow(), event);
  const served = pick ? [
    { keys: ["m"], shown: ["m"], words: "mask", run: mode("mask") },
    { keys: ["o"], shown: ["o"], words: "open a picture", run: pick },
  ] : [];
  return [
    { keys: Object.keys(ARROWS), shown: ["←", "↑", "→", "↓"], words: "move the patch that reads", run: moving(moveQuery) },
    { keys: ["[", "]"], shown: ["[", "]"], words: "the layer before, the next layer", run: moving(moveLayer) },
    { keys: [",", "."], shown: [",", "."], words: "the head before, the next head", run: moving(moveHead) },
    { keys: ["p"], shown: ["p"], words: "walk through the layers", run: play },
    { keys: ["l"], shown: ["l"], words: "light or heat", run: otherStyle },
    { keys: ["e"], shown: ["e"], words: "explanation", run: mode("explanation") },
    { keys: ["c"], shown: ["c"], words: "compare", run: mode("compare") },
    ...served,
    { keys: ["s"], shown: ["s"], words: "save or share", run: save },
    { keys: ["Escape"], shown: ["Esc"], words: "back to what the answer is read from", run: reset },
    { keys: ["?"], shown: ["?"], words: "this page", run: help },
  ];
}

function moveQuery({ grid: [h, w] }, { key }) {
  const patch = patchOf(state.get().query);
  const [down, right] = ARROWS[key];
  const [row, column] = patch ? [within(patch[0] + down, h), within(patch[1] + right, w)] : [h >> 1, w >> 1];
  state.set({ query: `${row},${column}` }, { replace: patch !== null });
}

const otherStyle = () => state.set({ style: state.get().style === "light" ? "heat" : "light" }, { replace: true });

function moveLayer(look, { key }) {
  const by = key === "]" ? 1 : -1;
  state.set({ layer: within(chosen(state.get(), look).layer + by, look.layers.length) }, { replace: true });
}

/** Through the heads and then their mean. */
function moveHead(look, { key }) {
  const by = key === "." ? 1 : -1;
  const { layer, head } = chosen(state.get(), look);
  const { heads } = look.layers[layer];
  const next = within((head === "mean" ? heads : head) + by, heads + 1);
  state.set({ head: next === heads ? "mean" : next }, { replace: true });
}

/** Nothing runs while the user types or a dialog is open, nor for keys that the focused element handled. */
export function bindKeys(table) {
  const found = new Map(table.flatMap((entry) => entry.keys.map((key) => [key, entry])));
  document.addEventListener("keydown", (event) => {
    const entry = found.get(event.key);
    if (!entry || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
    event.preventDefault();
    entry.run(event);
  });
}

/** Fills the dialog with how to read the picture, and with the table. */
export function fillHelp(dialog, table, lines) {
  const rows = table.map(({ shown, words }) => [
    el("dt", {}, ...shown.map((key) => el("kbd", { text: key }))), el("dd", { text: words }),
  ]);
  dialog.replaceChildren(
    el("div", { class: "pane-head" }, el("h2", { id: "help-title", text: "How to read it" }),
      el("button", { type: "button", class: "icon", "aria-label": "Close", text: "✕", onclick: () => dialog.close() })),
    ...lines.map((text) => el("p", { text })),
    el("h2", { text: "Keys" }), el("dl", {}, ...rows.flat()),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}
