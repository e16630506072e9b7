// The attention mode: the attention of the chosen query in all layers and heads, one of them in the large picture, and a walk through the layers.

import { el, percent } from "viewer/dom.js";
import { createMatrix } from "viewer/matrix.js";
import { createReadings } from "viewer/readings.js";
import { createWalk, flow } from "viewer/walk.js";

const PREVIEW_AFTER = 40; // ms that the pointer rests on a patch before its attention is requested

/** The {layer, head} shown: the last layer if none is chosen, the mean if the layer has no such head. */
export function chosen(now, look) {
  const last = look.layers.length - 1;
  const layer = now.layer === null ? last : Math.min(now.layer, last);
  const heads = look.layers[layer]?.heads ?? 0;
  return { layer, head: now.head === "mean" || now.head >= heads ? "mean" : now.head };
}

/** The query in words. */
export function readerName(query, look) {
  if (query === "own") return look.own;
  if (query === "mean") return "the average patch";
  const token = look.prefix.find(({ key }) => key === query);
  if (token) return /\d$/.test(token.name) ? token.name : `the ${token.name}`; // "register 2" goes without
  const [row, column] = query.split(",").map(Number);
  return `the patch in row ${row}, column ${column}`;
}

export const patchOf = (query) => (query.includes(",") ? query.split(",").map(Number) : null);

export function mount(root, app) {
  const place = el("div", { class: "matrix-place" });
  const me = {
    app, look: null, peek: {}, began: null, stepped: null, flowing: () => {}, timer: null, ends: [],
    readings: createReadings(app),
    read: null, // {query, layers} that are drawn, of this look
    now: () => app.state.get(),
    matrix: createMatrix(place, {
      hover: (cell) => peekAt(me, { layer: cell?.layer, head: cell?.head }),
      pin: (cell, { replace }) => app.state.set({ layer: cell.layer, head: cell.head }, { replace }),
    }),
  };
  const walk = createWalk(() => step(me));
  me.walk = walk;
  root.append(el("div", { class: "pane-head" }, el("h2", { text: "Layers and heads" }), walk.button), place);

  return {
    /** Walk through the layers, or stay. */
    play: walk.toggle,
    show(now, look, changed) {
      if (!me.ends.length) listen(me);
      if (look !== me.look) open(me, look);
      if (changed.has("layer") && now.layer !== me.stepped) walk.stop(); // somebody chose another
      // what is chosen is shown, wherever the pointer rests
      if (["query", "layer", "head"].some((name) => changed.has(name))) me.peek = {};
      if (changed.has("style") && me.read) me.matrix.draw(me.read.layers, now.style);
      move(me);
    },
    hide() {
      walk.stop();
      me.flowing();
      me.readings.stop();
      clearTimeout(me.timer);
      me.ends.forEach((end) => end());
      Object.assign(me, { ends: [], peek: {}, look: null, read: null });
      app.beads.shares(null);
    },
  };
}

function listen(me) {
  const { picture, beads, state } = me.app;
  me.ends = [
    picture.on("hover", (patch) => pointAt(me, patch)),
    picture.on("pin", ({ row, column }) => {
      const query = `${row},${column}`;
      state.set({ query: query === me.now().query ? "own" : query });
    }),
    beads.onHover((query) => peekAt(me, { query })),
  ];
}

function open(me, look) {
  Object.assign(me, { look, read: null, peek: {} });
  me.walk.stop();
  me.walk.button.hidden = look.layers.length < 2;
  me.matrix.load(look);
  if (look.layers.length) return;
  me.app.picture.paint({ values: null, grid: look.grid, extent: look.extent });
  me.app.picture.key(null);
}

/** Go to the next layer, or from the last to the first; returns whether another follows. */
function step(me) {
  if (!me.look?.layers.length) return false;
  const last = me.look.layers.length - 1;
  const { layer } = chosen(me.now(), me.look);
  const next = layer === last ? 0 : layer + 1;
  me.stepped = next;
  me.app.state.set({ layer: next }, { replace: true });
  return next < last;
}

/** Show the patch under the pointer in place of the chosen one. */
function peekAt(me, part) {
  me.peek = { ...me.peek, ...part };
  move(me);
}

/** Outline the patch under the pointer at once; its attention follows at once if cached, else when the pointer rests. */
function pointAt(me, patch) {
  clearTimeout(me.timer);
  if (!me.look.layers.length) return;
  const query = patch ? `${patch.row},${patch.column}` : undefined;
  me.app.picture.marks({ ...marksOf(me), ghost: patch && [patch.row, patch.column] });
  const wait = patch && !me.readings.known(me.now(), query) ? PREVIEW_AFTER : 0;
  me.timer = setTimeout(() => peekAt(me, { query }), wait);
}

/** Draw the current choice, once for changes that come together, and again when the server answers. */
function move(me) {
  if (!me.look?.layers.length) return;
  const query = me.peek.query ?? me.now().query;
  if (me.read?.query !== query) ask(me, query);
  if (me.began !== null) return;
  me.began = performance.now();
  queueMicrotask(() => draw(me));
}

async function ask(me, query) {
  const { app, look } = me;
  try {
    const layers = await me.readings.read(me.now(), query);
    if (look !== me.look || query !== (me.peek.query ?? me.now().query)) return;
    me.began ??= performance.now();
    me.read = { query, layers };
    me.matrix.draw(layers, me.now().style);
    draw(me);
    const patch = patchOf(me.now().query);
    if (patch) me.readings.ahead(me.now(), patch, look.grid);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (me.peek.query === query && app.api.exported) return; // only pointed at, and not recorded
    app.fail(error);
    if (me.now().query === query && query !== "own") app.state.set({ query: "own" }, { replace: true });
  }
}

/** The layer and head shown, and the attention there: {about, at, head, read: null until it is known, query}. */
function seen(me) {
  const { now, look, peek, read } = me;
  const given = now();
  const { layer, head } = chosen({ layer: peek.layer ?? given.layer, head: peek.head ?? given.head }, look);
  const about = look.layers[layer];
  const at = head === "mean" ? about.heads : head;
  return { about, head, at, read: read?.layers[layer] ?? null, query: read?.query ?? given.query };
}

const marksOf = (me) => ({
  query: patchOf(me.now().query), ghost: me.peek.query ? patchOf(me.peek.query) : null, borders: seen(me).about.borders,
});

function draw(me) {
  if (me.began === null || !me.look?.layers.length) return (me.began = null);
  const { app, matrix, walk, now, look } = me;
  const { about, at, head, read, query } = seen(me);
  const map = read && !read.why ? read.maps(at) : null;
  const even = map ? read.even[at] : "";
  const paint = (values) => app.picture.paint({ values, even: Boolean(even), grid: about.grid, extent: about.extent, style: now().style });
  me.flowing();
  me.flowing = () => {};
  if (even) paint(null);
  else if (walk.walking() && map) me.flowing = flow(app.picture.shown().values, map, paint);
  else paint(map);
  app.picture.marks(marksOf(me));
  const where = `${about.name}, ${head === "mean" ? "mean of its heads" : `head ${head}`}`;
  const words = read?.why ? `${about.name}: ${read.why}` : `${where}: ${readerName(query, look)} reads${even && `; ${even}`}`;
  app.picture.key({ low: map && !even ? "0" : "", high: map && !even ? percent(read.tops[at]) : "", words });
  app.beads.shares(map ? read.prefix[at] : null);
  const pinned = chosen(now(), look);
  matrix.choose(pinned.layer, pinned.head);
  const peeking = Object.values(me.peek).some((value) => value !== undefined);
  if (map && !peeking) app.announce(even ? words : `${words}, ${most(map, about.grid, read.tops[at])}`);
  measure(me, map);
}

function most(map, [, w], top) {
  const at = map.indexOf(Math.max(...map));
  return `most of row ${Math.floor(at / w)}, column ${at % w}: ${percent(top)}`;
}

function measure(me, map) {
  performance.measure("viewer:move", { start: me.began, end: performance.now() });
  if (map && !performance.getEntriesByName("viewer:first").length) performance.measure("viewer:first", { start: 0 });
  me.began = null;
}
