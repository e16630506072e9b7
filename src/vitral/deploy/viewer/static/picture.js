// The large picture: a canvas at the screen's own resolution with a map as light on it, marks above it and its key below.

import { api } from "viewer/api.js";
import { drawScale, footOf } from "viewer/caption.js";
import { el } from "viewer/dom.js";
import { canvasOf, groundsOf, paintMap, paintMarks, paintPlaces, tiling } from "viewer/glass.js";

const SAVED = 1200; // pixels of a saved picture's longer side, at least
const LEAST = 0.5; // a saved picture's least width, as a share of its longer side
const NOTHING = { values: null, even: false, grid: [1, 1], extent: [1, 1], colours: null, style: "light", smooth: false };

/**
 * `load(look)` (a promise), `preview(url)` of a picture that the server has not looked at, `paint({values [h * w] in 0..1 or null, even: a
 * map without contrast, grid, extent, colours [h * w * 3] or null, style, smooth})`, `marks({query, ghost, borders, masked, maskGrid, maskExtent})`, which replace
 * those before, `places([{label, index, box}], the chosen number or null)` drawn beside them, `only(painted or null)`, shown instead of what was painted
 * until it is null, `key({low, high, words, from, to} or null)` of what was painted last, `shown()` that, `toPNG(caption)` a promise of a Blob,
 * `canvas` for names and focus, `keyRoot` for what belongs beside the key, and `on(type, fn)`, which returns a function that ends it:
 * fn({row, column, grid, at: x and y in pixels of the picture}) on "hover" (null when the pointer leaves), "pin", and, while there is a set `masked`, "paint", with `erase` and
 * `first` (of a stroke).
 */
export function createPicture(root) {
  const canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": "the picture" });
  const above = el("canvas", { class: "marks", "aria-hidden": "true" });
  const stage = el("div", { class: "stage" }, canvas, above);
  const scale = el("canvas", { width: 128, height: 1 });
  const words = el("span", { class: "words" });
  const [low, high] = [el("span"), el("span")];
  const key = el("div", { class: "key", hidden: true }, el("span", { class: "scale" }, low, scale, high), words);
  root.append(stage, key);

  const me = {
    image: null, source: "", look: null, painted: NOTHING, only: null, marked: {}, places: [], place: null, grounds: null, frame: null, key: null, keyed: null,
  };
  const listeners = { hover: new Set(), pin: new Set(), paint: new Set() };
  const emit = (type, event) => [...listeners[type]].forEach((fn) => fn(event));
  const redraw = () => draw(canvas, above, me);
  const fit = () => me.image && resize(stage, canvas, above, me) && redraw();
  new ResizeObserver(fit).observe(stage);
  addEventListener("resize", fit);
  listen(canvas, me, emit);

  async function open(source) {
    if (me.source === source) return;
    me.source = source;
    const image = new Image();
    image.src = source;
    try {
      await image.decode();
    } catch (error) {
      if (me.source === source) me.source = "";
      throw error;
    }
    if (me.source !== source) return; // another came meanwhile
    [me.image, me.frame] = [image, null];
    fit();
  }

  return {
    canvas,
    keyRoot: key,
    async load(look) {
      const known = me.look?.picture.id === look.picture.id;
      me.look = look;
      if (!known) [me.painted, me.marked, me.places, me.only] = [NOTHING, {}, [], null];
      await open(api.pictureURL(look.picture.id));
      me.frame = null; // another model sees another box
      fit();
    },
    async preview(url) {
      [me.look, me.painted, me.marked, me.places, me.only] = [null, NOTHING, {}, [], null];
      this.key(null);
      await open(url);
    },
    paint(painted) {
      me.painted = { ...NOTHING, ...painted };
      if (me.frame) redraw();
    },
    marks(marked) {
      me.marked = marked;
      canvas.classList.toggle("paintable", Boolean(marked.masked));
      if (me.frame) drawMarks(above, me);
    },
    places(list, chosen) {
      [me.places, me.place] = [list, chosen ?? list[0]?.index ?? null];
      if (me.frame) drawMarks(above, me);
    },
    only(painted) {
      me.only = painted && { ...NOTHING, ...painted };
      if (me.frame) redraw();
    },
    key(text) {
      me.key = text;
      key.hidden = !text;
      if (!text) return;
      scale.parentElement.hidden = Boolean(me.painted.colours) || me.painted.even;
      const { from = 0, to = 1 } = text;
      const drawn = `${me.painted.style} ${from} ${to}`;
      if (me.keyed !== drawn) drawScale(scale, me.painted.style, from, to);
      me.keyed = drawn;
      [low.textContent, high.textContent, words.textContent] = [text.low, text.high, text.words];
    },
    shown: () => me.painted,
    toPNG: (caption) => toPNG(me, caption),
    on(type, fn) {
      listeners[type].add(fn);
      return () => listeners[type].delete(fn);
    },
  };
}

/** Makes the canvas as large as its place allows, in the picture's shape. Returns whether it must be redrawn. */
function resize(stage, canvas, above, me) {
  const { naturalWidth, naturalHeight } = me.image;
  const tallest = parseFloat(getComputedStyle(stage).maxHeight) || Infinity;
  const fit = Math.min(stage.clientWidth / naturalWidth, tallest / naturalHeight);
  const [width, height] = [Math.max(1, Math.floor(naturalWidth * fit)), Math.max(1, Math.floor(naturalHeight * fit))];
  const unit = window.devicePixelRatio || 1;
  if (me.frame && me.frame.width === Math.round(width * unit) && me.frame.unit === unit) return false;
  for (const each of [canvas, above]) {
    each.style.width = `${width}px`;
    each.style.height = `${height}px`;
    each.width = Math.round(width * unit);
    each.height = Math.round(height * unit);
  }
  me.frame = frameOf(me, canvas.width, canvas.height, unit);
  me.grounds = groundsOf(me.image, me.frame);
  return true;
}

function frameOf({ look, image }, width, height, unit) {
  const of = look?.picture ?? { width: image.naturalWidth, height: image.naturalHeight };
  const [top, left, boxH, boxW] = look?.box ?? [0, 0, of.height, of.width];
  const [x, y] = [width / of.width, height / of.height];
  return { width, height, unit, box: [left * x, top * y, boxW * x, boxH * y] };
}

function draw(canvas, above, me) {
  paintMap(canvas.getContext("2d"), me.grounds, me.frame, me.only ?? me.painted);
  drawMarks(above, me);
}

const asking = ({ look }) => ({ grid: look?.grid ?? [1, 1], extent: look?.extent ?? [1, 1] });
const masking = ({ look, marked }) => ({
  grid: marked.maskGrid ?? look?.removal?.grid ?? [1, 1],
  extent: marked.maskExtent ?? look?.removal?.extent ?? [1, 1],
});

function drawMarks(above, me) {
  const context = above.getContext("2d");
  paintMarks(context, me.frame, me.marked, me.painted, asking(me), masking(me));
  if (me.look) paintPlaces(context, me.frame, me.places, me.place, me.look.picture);
}

/**
 * What is shown, in pixels of the picture, small pictures enlarged a whole number of times; below it the key, and a line that says what this is.
 */
async function toPNG(me, caption) {
  const { naturalWidth, naturalHeight } = me.image;
  const times = Math.max(1, Math.ceil(SAVED / Math.max(naturalWidth, naturalHeight)));
  const [map, above] = [0, 1].map(() => canvasOf(naturalWidth * times, naturalHeight * times));
  const longer = Math.max(map.width, map.height);
  const frame = frameOf(me, map.width, map.height, Math.max(1, longer / 720));
  draw(map, above, { ...me, frame, grounds: groundsOf(me.image, frame) });
  const width = Math.max(map.width, Math.round(LEAST * longer)); // words need some room below a narrow picture
  const foot = footOf(me.key, me.painted.style, caption, width, longer / 720);
  const canvas = canvasOf(width, map.height + foot.height);
  const context = canvas.getContext("2d");
  foot.draw(context, map.height);
  for (const each of [map, above]) context.drawImage(each, Math.round((width - map.width) / 2), 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Pointer to patches: of the grid that is masked if there is one, else of the queries' grid. */
function listen(canvas, me, emit) {
  let over = null;
  let stroke = null; // {erase, last} while the pointer is down

  function patchAt(event) {
    if (!me.frame || !me.look) return null;
    const of = me.marked.masked ? masking(me) : asking(me);
    const { left, top, cellW, cellH } = tiling(me.frame, of.grid, of.extent);
    const [x, y] = [event.offsetX * me.frame.unit, event.offsetY * me.frame.unit];
    const [boxX, boxY, boxW, boxH] = me.frame.box;
    if (x < boxX || y < boxY || x >= boxX + boxW || y >= boxY + boxH) return null;
    const [row, column] = [Math.floor((y - top) / cellH), Math.floor((x - left) / cellW)];
    const at = [x / me.frame.width * me.look.picture.width, y / me.frame.height * me.look.picture.height];
    return row >= 0 && column >= 0 && row < of.grid[0] && column < of.grid[1] ? { row, column, grid: of.grid, at } : null;
  }
  const hover = (patch) => {
    if (patch?.row === over?.row && patch?.column === over?.column) return;
    over = patch;
    emit("hover", patch);
  };
  const paintTo = (patch) => {
    for (const step of between(stroke.last ?? patch, patch)) {
      emit("paint", { ...step, grid: patch.grid, erase: stroke.erase, first: stroke.last === null });
      stroke.last = step;
    }
  };

  canvas.addEventListener("pointerdown", (event) => {
    const patch = patchAt(event);
    if (!me.marked.masked || !patch || event.button === 1) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    stroke = { erase: event.altKey || event.button === 2, last: null };
    paintTo(patch);
  });
  canvas.addEventListener("pointermove", (event) => {
    const patch = patchAt(event);
    if (event.pointerType !== "touch" || stroke) hover(patch);
    if (stroke && patch) paintTo(patch);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (stroke = null));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("contextmenu", (event) => me.marked.masked && event.preventDefault());
  canvas.addEventListener("click", (event) => {
    const patch = patchAt(event);
    if (patch && !me.marked.masked) emit("pin", patch);
  });
}

/** The patches on the line from one to another, the last included, so that a fast stroke leaves no gaps. */
function between(from, to) {
  const steps = Math.max(Math.abs(to.row - from.row), Math.abs(to.column - from.column), 1);
  const mix = (a, b, i) => Math.round(a + ((b - a) * i) / steps);
  return Array.from({ length: steps }, (_, i) => (
    { row: mix(from.row, to.row, i + 1), column: mix(from.column, to.column, i + 1) }
  ));
}
