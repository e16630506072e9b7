// The inspect mode: what is inside the model and what it does with this picture, layer by layer; one map at a time in the large picture.

import { bytes, path, unpack } from "viewer/api.js";
import { patchOf } from "viewer/attention.js";
import { layerChart, legend } from "viewer/charts.js";
import { CHOSEN, EVEN, light, ramp } from "viewer/colour.js";
import { el, percent, rove } from "viewer/dom.js";

const THUMB = 72; // pixels of a small map's longer side, at least
const MANY = 1e4; // norms from here on are abbreviated

/** The part of an inspection in the picture: {kind: "positions" or "norms", i}, or null if the model has neither. */
export function inspected(now, found) {
  const [kind, i] = [now.inspected[0] === "p" ? "positions" : "norms", Number(now.inspected.slice(1))];
  if (found[kind]) return { kind, i: Math.min(i, found[kind].length - 1) };
  const other = kind === "positions" ? "norms" : "positions";
  return found[other] ? { kind: other, i: found[other].length - 1 } : null;
}

/** The map in the picture: {values in their own unit, low, high, grid, extent, words, outlying}. `patch` asks about its position. */
export function mapOf(found, { kind, i }, patch, look) {
  if (kind === "norms") {
    const { name, map, outlying } = found.norms[i];
    return { ...unpack(map), outlying, words: `${place(name, i)}: norm of each patch's vector` };
  }
  const one = found.positions[i];
  const [h, w] = one.grid;
  const [row, column] = [0, 1].map((axis) => Math.min(one.grid[axis] - 1, Math.floor(((patch[axis] + 0.5) * one.grid[axis]) / look.grid[axis])));
  const [a, b] = [nearest(one.rows, row), nearest(one.columns, column)];
  const size = h * w;
  one.all ??= bytes(one.data);
  const raw = one.all.subarray((a * one.columns.length + b) * size, (a * one.columns.length + b + 1) * size);
  const values = Float32Array.from(raw, (byte) => one.low + (byte / 255) * (one.high - one.low));
  const name = found.positions.length > 1 ? `${one.name}: ` : "";
  const words = `${name}cosine of the position in row ${one.rows[a]}, column ${one.columns[b]} with every other`;
  return { ...one, values, outlying: [], words };
}

const nearest = (asked, at) => asked.reduce((best, each, i) => (Math.abs(each - at) < Math.abs(asked[best] - at) ? i : best), 0);
const place = (name, i) => (i === 0 ? "layer 0 (what enters the first block)" : `layer ${i} (${name})`);
const norm = (value) => (value >= MANY ? value.toExponential(1) : value >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString());

export function mount(root, app) {
  const cards = el("div", { class: "findings" });
  root.append(el("div", { class: "pane-head" }, el("h2", { text: "Inside the model" })), cards);
  let [look, found, asking, hovered, ends, choosers] = [null, null, null, null, [], []];
  const now = () => app.state.get();
  const choose = (inspected) => app.state.set({ inspected }, { replace: true });

  async function ask() {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    found = null;
    cards.replaceChildren(el("p", { class: "soft waiting", text: "Looking inside" }));
    draw();
    try {
      const { model, image } = now();
      const answer = await app.busy(app.api.get(path(model, image, "inspect"), { signal }));
      if (signal.aborted) return;
      found = answer;
      choosers = [];
      cards.replaceChildren(...CARDS.flatMap((make) => make(found, app, choose, choosers, look)));
      if (ends.length) draw();
    } catch (error) {
      if (error.name === "AbortError") return;
      look = null; // so that it is requested again
      cards.replaceChildren();
      app.fail(error);
    }
  }

  /** The patch whose position is shown: the one under the pointer, else the chosen one, else the central one. */
  const asked = () => hovered ?? patchOf(now().query) ?? look.grid.map((side) => Math.floor(side / 2));

  function draw() {
    const what = found && inspected(now(), found);
    if (!what) {
      app.picture.paint({ values: null, grid: look.grid, extent: look.extent });
      app.picture.marks({});
      return app.picture.key(null);
    }
    const patch = asked();
    const map = mapOf(found, what, patch, look);
    const span = map.high - map.low || 1;
    const form = what.kind === "positions" ? (value) => value.toFixed(2).replace("-", "−") : norm;
    const lit = map.even ? null : map.values.map((value) => (value - map.low) / span);
    app.picture.paint({ values: lit, even: Boolean(map.even), grid: map.grid, extent: map.extent, style: now().style });
    app.picture.marks(what.kind === "positions" ? { query: patch } : { outlying: map.outlying });
    const [low, high] = map.even ? ["", ""] : [form(map.low), form(map.high)];
    app.picture.key({ low, high, words: map.even ? `${map.words}; ${map.even}` : map.words });
    for (const chooser of choosers) chooser(what, now().style);
  }

  return {
    show(state, newLook, changed) {
      if (!ends.length) {
        ends = [
          app.picture.on("hover", (patch) => {
            hovered = patch && [patch.row, patch.column];
            draw();
          }),
          app.picture.on("pin", ({ row, column }) => app.state.set({ query: `${row},${column}` })),
        ];
      }
      if (newLook !== look) {
        look = newLook;
        return void ask();
      }
      if (found && changed.has("query")) app.announce(mapOf(found, inspected(state, found), asked(), look).words);
      draw();
    },
    hide() {
      ends.forEach((end) => end());
      [ends, hovered] = [[], null];
    },
  };
}

const card = (kind, title, ...inside) => el("section", { class: `finding ${kind}` }, el("h3", { text: title }), ...inside);
const said = (text) => el("p", { class: "soft", text });

/** A toggle button for something in the large picture. */
function chooserOf(text, value, is, choose, choosers, ...children) {
  const button = el("button", { type: "button", onclick: () => choose(value) }, ...children, text);
  choosers.push((what) => button.setAttribute("aria-pressed", is(what)));
  return button;
}

function positionCard({ positions, missing }, app, choose, choosers) {
  const title = "Similarity of positions";
  if (!positions) return [card("positions", title, said(`None here: ${missing.positions}.`))];
  const buttons = positions.map(({ name }, i) => chooserOf(positions.length > 1 ? name : "Show in the picture", `p${i}`,
    ({ kind, i: at }) => kind === "positions" && at === i, choose, choosers));
  const words = "Point at a patch in the picture: positions similar to its own are light. Crosses and blobs show that the model knows "
    + "rows, columns and neighbours (as figure 7, centre, of the ViT paper).";
  return [card("positions", title, el("div", { class: "choices" }, ...buttons), said(words))];
}

function normCard({ norms, layers, words, missing }, app, choose, choosers, { prefix: tokens }) {
  const title = "Norms of the patch tokens";
  if (!norms) return [card("norms", title, said(`None here: ${missing.layers}.`))];
  const strip = el("div", { class: "layers", role: "group", "aria-label": "Norms by layer" });
  norms.forEach((one, i) => {
    const canvas = el("canvas", { "aria-hidden": "true" });
    const button = chooserOf(`${i}`, `n${i}`, ({ kind, i: at }) => kind === "norms" && at === i, choose, choosers, canvas);
    const many = one.outlying.length ? `, ${one.outlying.length} outlying` : "";
    button.title = `${place(one.name, i)}: from ${norm(one.map.low)} to ${norm(one.map.high)}${many}`;
    button.setAttribute("aria-label", button.title);
    choosers.push((what, style) => drawThumb(canvas, one, style));
    strip.append(button);
  });
  rove(strip, () => [...strip.children], (button) => button.click());
  const at = (quantile) => layers.map(({ norms: found }, x) => [x, found[quantile]]);
  const prefix = layers.flatMap(({ prefix_norms: [first] }, x) => (first === undefined ? [] : [[x, first]]));
  const lines = [
    { kind: "high", text: "largest", points: at("1") }, { kind: "main", text: "median", points: at("0.5") },
    ...(prefix.length ? [{ kind: "other", text: tokens[0]?.name ?? "first token", points: prefix }] : []),
  ];
  const top = Math.max(...lines.flatMap(({ points }) => points.map(([, y]) => y)));
  const chart = layerChart({
    title: "Norms of tokens by layer", xLabel: "layer (0: what enters the blocks)", count: layers.length, top, form: norm, lines,
    description: `The median goes from ${norm(layers[0].norms["0.5"])} to ${norm(layers.at(-1).norms["0.5"])}.`,
    logarithmic: layers.some(({ norms: found }) => found["1"] > 10 * found["0.5"]), pick: ({ x }) => choose(`n${x}`),
  });
  choosers.push(({ kind, i }) => chart.choose(kind === "norms" ? i : null));
  return [card("norms", title, strip, chart.root, legend(lines.map(({ kind, text }) => [kind, text])), said(words.norms))];
}

/** A layer's norms, dark to light; outlying patches are framed. */
function drawThumb(canvas, { map, outlying }, style) {
  const { grid: [h, w], values, low, high, even } = unpack(map);
  const side = Math.max(1, Math.round(THUMB / Math.max(h, w)));
  [canvas.width, canvas.height] = [w * side, h * side];
  const context = canvas.getContext("2d");
  const colours = ramp(style === "heat" ? "inferno" : "light");
  values.forEach((value, k) => {
    const share = (value - low) / (high - low || 1);
    const at = 3 * Math.round(255 * (style === "heat" ? share : light(share)));
    context.fillStyle = `rgb(${(even ? EVEN : colours.subarray(at, at + 3)).join(" ")})`;
    context.fillRect((k % w) * side, Math.floor(k / w) * side, side, side);
  });
  context.strokeStyle = `rgb(${CHOSEN})`;
  context.lineWidth = 1.5;
  for (const k of outlying) context.strokeRect((k % w) * side, Math.floor(k / w) * side, side, side);
}

function filterCard({ filters: { title, words, picture } }) {
  return [card("filters", title, el("img", { src: picture, alt: title, class: "exact" }), said(words))];
}

/** A dot for each head, their mean, and the value of a head that attends to all patches equally. */
function headChart(app, { title, values, top, form, uniform = [] }) {
  const measured = values.flatMap((heads, x) => (heads ? [[x, heads]] : []));
  const mean = measured.map(([x, heads]) => [x, heads.reduce((sum, y) => sum + y, 0) / heads.length]);
  const lines = [{ kind: "main", text: "mean of heads", points: mean }];
  if (uniform.length) lines.push({ kind: "alike", text: "reads all alike", points: uniform });
  const told = (x, head, y) => `layer ${x}, head ${head}: ${form(y)}; click to see what it reads`;
  const chart = layerChart({
    title, xLabel: "attention layer", count: values.length, top, form, lines,
    description: mean.map(([x, y]) => `layer ${x}: ${form(y)}`).join(", "),
    dots: measured.flatMap(([x, heads]) => heads.map((y, head) => ({ x, y, head, text: told(x, head, y) }))),
    pick: ({ x, head }) => app.state.set({ mode: "attention", layer: x, head: head ?? "mean" }),
  });
  return [chart.root, legend([["dot", "one head"], ...lines.map(({ kind, text }) => [kind, text])])];
}

function distanceCard({ attention, words, missing }, app) {
  const title = "How far a head reads";
  if (!attention) return [card("distance", title, said(`None here: ${missing.attention}.`))];
  const values = attention.map(({ distance_pixels: heads }) => heads);
  if (!values.some(Boolean)) return [card("distance", title, said("None here: no patch is a query in this model's attention."))];
  const uniform = attention.flatMap(({ uniform_distance_pixels: y }, x) => (y === null ? [] : [[x, y]]));
  const top = Math.max(...values.flat().filter((y) => y !== null), ...uniform.map(([, y]) => y));
  const form = (y) => `${Number(y.toPrecision(3))} px`;
  const chart = headChart(app, { title: "Mean attention distance of each head by layer", values, top, form, uniform });
  return [card("distance", title, ...chart, said(words.distance))];
}

function entropyCard({ attention, words }, app) {
  if (!attention) return [];
  const values = attention.map(({ entropy_nats: heads, largest_entropy_nats: most }) => (most > 0 ? heads.map((y) => y / most) : null));
  const chart = headChart(app, { title: "Entropy of each head by layer", values, top: 1, form: percent });
  return [card("entropy", "How evenly a head reads", ...chart, said(words.entropy))];
}

function biasCard({ biases, missing }) {
  const title = "Bias by offset";
  if (!biases) return [card("biases", title, said(`None here: ${missing.offset_biases}.`))];
  return biases.map(({ heads, words, picture }) => {
    const shown = el("img", { src: picture, alt: title, class: "exact" });
    shown.style.maxWidth = `${Math.min(440, 96 * heads)}px`;
    return card("biases", title, shown, said(words));
  });
}

const CARDS = [positionCard, normCard, filterCard, distanceCard, entropyCard, biasCard];
