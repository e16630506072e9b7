// Layers down, heads across, the mean at the right: a thumbnail of every map on one canvas, and the early answer of each layer.

import { CHOSEN, EVEN, light, ramp } from "viewer/colour.js";
import { el, percent } from "viewer/dom.js";

const GAP = 3;
const [SMALLEST, FINGER, LARGEST, SHALLOW] = [15, 44, 76, 170]; // pixels of a thumbnail: least, for touch, most, and most with few layers
const LINE = 16; // heads in a line, at most
const LENS = [104, 190]; // pixels of the early answer: at least, at most
const UNDER = 24; // pixels of a line for it below the thumbnails
const MEAN_GAP = 8; // between the heads and their mean
const HEADER = 24; // pixels of the line of head numbers, and of a stage's own line
const ABOVE = 230; // pixels of the page that are not the matrix's
const LINED = 7; // pixels of a window from which a thumbnail shows its borders
const coarse = matchMedia("(pointer: coarse)");

/** `load(look)`, `draw(layers, style)` of decoded answers, `choose(layer, head)`. Calls hover(cell or null) and pin(cell, {replace}). */
export function createMatrix(root, { hover, pin }) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const grid = el("div", { class: "matrix", role: "grid", "aria-label": "Layers down, heads across" });
  const me = { look: null, layers: null, style: "light", cells: new Map(), at: null, size: null };
  const redraw = () => me.layers && drawAll(canvas, me);
  new ResizeObserver(() => me.look?.layers.length && fit(root, grid, canvas, me) && redraw()).observe(root);

  const cellOf = (event) => event.target.closest?.("[role=gridcell]");
  const meant = ({ dataset: { layer, head } }) => ({ layer: Number(layer), head: head === "mean" ? head : Number(head) });
  grid.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch" && cellOf(event)) hover(meant(cellOf(event)));
  });
  grid.addEventListener("pointerleave", () => hover(null));
  grid.addEventListener("click", (event) => cellOf(event) && pin(meant(cellOf(event)), { replace: false }));
  grid.addEventListener("keydown", (event) => roam(event, me, (cell) => pin(cell, { replace: true })));

  return {
    load(look) {
      [me.look, me.layers, me.at] = [look, null, null];
      me.cells.clear();
      if (!look.layers.length) return root.replaceChildren(el("p", { class: "why", text: look.why }));
      grid.replaceChildren(canvas, headings(look), ...look.layers.flatMap((layer, i) => {
        const made = row(look, layer, i, me.cells);
        return startsStage(look, i) ? [stageLine(layer), made] : [made];
      }));
      root.replaceChildren(grid);
      me.size = null;
      fit(root, grid, canvas, me);
    },
    draw(layers, style) {
      const start = performance.now();
      [me.layers, me.style] = [layers, style];
      redraw();
      performance.measure("viewer:matrix", { start, end: performance.now() });
    },
    choose(layer, head) {
      const next = me.cells.get(`${layer} ${head}`);
      if (next === me.at) return;
      const held = me.at && document.activeElement === me.at;
      for (const [cell, on] of [[me.at, false], [next, true]]) {
        if (!cell) continue;
        cell.tabIndex = on ? 0 : -1;
        cell.setAttribute("aria-selected", on);
        cell.parentElement.classList.toggle("chosen", on);
      }
      next.parentElement.classList.add("chosen");
      me.at = next;
      if (held) next.focus({ preventScroll: true });
    },
  };
}

const alike = ({ layers }) => layers.every(({ heads }) => heads === layers[0].heads && heads <= LINE);
const staged = ({ layers }) => layers.at(-1).stage > 0;
const startsStage = (look, i) => staged(look) && look.layers[i].stage !== look.layers[i - 1]?.stage;
const lineOf = (heads) => Math.ceil(heads / Math.ceil(heads / LINE)); // heads in a line, where lines are as even as can be

function headings(look) {
  const heads = alike(look) ? look.layers[0].heads : 0;
  const heading = (properties) => el("span", { role: "columnheader", ...properties });
  const numbers = Array.from({ length: heads }, (_, i) => heading({ text: i, "aria-label": `head ${i}` }));
  const lens = look.lens.layers ? [heading({ class: "lens", text: "answer so far" })] : [];
  return el("div", { role: "row", class: "headings" }, heading({ class: "name", text: heads ? "head" : "heads" }), ...numbers,
    heading({ class: "mean", text: "mean" }), ...lens);
}

function stageLine({ stage, grid: [h, w], kind }) {
  const how = { windows: ", read in windows", reduced: ", read from fewer" }[kind] ?? "";
  const text = `stage ${stage}: ${h} × ${w} patches${how}`;
  return el("div", { role: "row", class: "stage-line" }, el("span", { role: "columnheader", text }));
}

function row(look, layer, i, cells) {
  const cell = (head) => {
    const made = el("button", {
      type: "button", role: "gridcell", tabindex: "-1", "aria-selected": "false", "data-layer": i, "data-head": head,
      class: head === "mean" ? "mean" : undefined,
      "aria-label": `${layer.name}, ${head === "mean" ? "mean of the heads" : `head ${head}`}`,
    });
    cells.set(`${i} ${head}`, made);
    return made;
  };
  const heads = Array.from({ length: layer.heads }, (_, head) => cell(head));
  const lens = look.lens.layers ? [early(look, i)] : [];
  const name = staged(look) ? layer.name.replace(/^stage \d+, /, "") : layer.name;
  const heading = el("span", { role: "rowheader", class: "name", text: name, title: layer.name });
  return el("div", { role: "row", class: "layer" }, heading, ...heads, cell("mean"), ...lens);
}

/** The early answer of a layer: its first class, and the probability of the final one. */
function early(look, i) {
  const found = look.lens.layers.findLast(({ after }) => after === i);
  if (!found?.top.length) return el("span", { class: "lens" });
  const [{ index, label, p }] = found.top;
  const final = look.answer.top[0];
  const right = index === final?.index;
  const bar = el("i");
  bar.style.width = `${100 * found.answer}%`;
  const beside = right || !final ? "" : `; ${final.label} has ${percent(found.answer)}`;
  return el("span", {
    class: right ? "lens right" : "lens", title: `the head applied here answers ${label} (${percent(p)})${beside}`,
  }, el("b", { text: label }), el("small", { text: percent(p) }), bar);
}

/** A whole number of pixels a patch if that costs little size: patches of uneven size look like another map. */
function snapped(cell, patches, unit) {
  const even = (Math.floor((cell * unit) / patches) * patches) / unit;
  return even >= 0.87 * cell ? even : cell;
}

/**
 * The layout, in pixels of the page: {names, area, lens, wide, high, unit, rows: [{line, cell, tall, y}]}. Cells are as large as the space allows,
 * and large enough for a finger on touch screens; layers with few heads, such as a pyramid's finest grids, get larger ones. In a tall window the
 * early answers stand below the thumbnails, which then use their width.
 */
function layoutOf(look, wide) {
  const beside = laidOut(look, wide, false);
  if (staged(look) || look.layers.some(({ heads }) => lineOf(heads) < heads)) return beside;
  const under = laidOut(look, wide, true);
  return under.high <= innerHeight - ABOVE + HEADER && under.rows[0].cell > beside.rows[0].cell ? under : beside;
}

function laidOut(look, wide, below) {
  const unit = window.devicePixelRatio || 1;
  const [viewH, viewW] = look.view;
  const shape = Math.min(2, Math.max(0.5, viewH / viewW));
  const names = staged(look) ? 66 : Math.min(110, 16 + 7 * Math.max(...look.layers.map(({ name }) => name.length)));
  const least = look.lens.layers && !below ? LENS[0] : 0;
  const under = look.lens.layers && below ? UNDER + GAP : 0;
  const largest = below ? SHALLOW : LARGEST;
  const tallest = staged(look) ? LARGEST : Math.max(28, (innerHeight - ABOVE) / look.layers.length - GAP - under);
  let y = HEADER;
  const rows = look.layers.map(({ heads, grid }, i) => {
    const line = lineOf(heads);
    const free = (wide - names - least - MEAN_GAP) / (line + 1) - GAP;
    const smallest = coarse.matches ? FINGER : SMALLEST;
    const cell = snapped(Math.floor(Math.max(smallest, Math.min(largest, tallest / shape, free))), grid[1], unit);
    const tall = Math.round(shape * cell);
    if (startsStage(look, i)) y += HEADER;
    const row = { line, cell, tall, y };
    y += Math.ceil(heads / line) * (tall + GAP) + under;
    return row;
  });
  const area = Math.max(...rows.map(({ line, cell }) => (line + 1) * (cell + GAP) + MEAN_GAP));
  const lens = least && Math.max(least, Math.min(LENS[1], Math.floor(wide - names - area)));
  return { names, area, lens, under, wide: names + area + lens, high: y, unit, rows };
}

/** Renews the layout if the space has changed; returns whether it has. */
function fit(root, grid, canvas, me) {
  const size = layoutOf(me.look, root.clientWidth);
  if (JSON.stringify(size) === JSON.stringify(me.size)) return false;
  me.size = size;
  const set = (node, sizes) => {
    for (const [name, value] of Object.entries(sizes)) node.style.setProperty(`--${name}`, `${value}px`);
  };
  grid.classList.toggle("under", size.under > 0);
  set(grid, { names: size.names, under: UNDER, area: size.area, lens: size.lens, gap: GAP, header: HEADER, cell: size.rows[0].cell });
  grid.style.setProperty("--line", size.rows[0].line);
  grid.style.width = `${size.wide}px`;
  grid.querySelectorAll(".layer").forEach((node, i) => {
    const { line, cell, tall } = size.rows[i];
    set(node, { cell, tall });
    node.style.setProperty("--line", line);
    [...node.querySelectorAll("[role=gridcell]:not(.mean)")].forEach((each, head) => {
      each.style.gridArea = `${1 + Math.floor(head / line)} / ${2 + (head % line)}`;
    });
  });
  canvas.width = Math.round(size.wide * size.unit);
  canvas.height = Math.round(size.high * size.unit);
  canvas.style.width = `${size.wide}px`;
  canvas.style.height = `${size.high}px`;
  return true;
}

function drawAll(canvas, me) {
  const { names, area, unit, rows } = me.size;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const words = new Uint32Array(image.data.buffer);
  const colours = tableOf(me.style);
  const lined = [];
  me.layers.forEach((layer, i) => {
    if (layer.why) return;
    const { heads, grid, borders } = me.look.layers[i];
    const { line, cell, tall, y } = rows[i];
    for (let head = 0; head <= heads; head++) {
      const left = head === heads ? names + area - GAP - cell : names + (head % line) * (cell + GAP);
      const top = head === heads ? y : y + Math.floor(head / line) * (tall + GAP);
      const place = [left, top, cell, tall].map((side) => Math.round(side * unit));
      if (layer.even[head]) fillEven(words, canvas.width, place);
      else fillCell(words, canvas.width, place, layer.all, head * layer.size, grid, colours);
      if (borders && cell >= LINED * (borders.columns.length + 1)) lined.push([borders, grid, place]);
    }
  });
  context.putImageData(image, 0, 0);
  for (const [borders, grid, place] of lined) windowLines(context, borders, grid, place);
}

/** Draws one map pixel by pixel; if the map is finer than its thumbnail, a pixel shows its brightest patch. */
function fillCell(words, stride, [x, y, width, height], all, start, [h, w], colours) {
  const [tops, bottoms] = spans(h, height);
  const [lefts, rights] = spans(w, width);
  for (let row = 0; row < height; row++) {
    const at = (y + row) * stride + x;
    if (row && tops[row] === tops[row - 1] && bottoms[row] === bottoms[row - 1]) {
      words.copyWithin(at, at - stride, at - stride + width);
      continue;
    }
    for (let column = 0; column < width; column++) {
      let most = 0;
      for (let r = tops[row]; r < bottoms[row]; r++) {
        const from = start + r * w;
        for (let c = lefts[column]; c < rights[column]; c++) if (all[from + c] > most) most = all[from + c];
      }
      words[at + column] = colours[most];
    }
  }
}

function fillEven(words, stride, [x, y, width, height]) {
  const [red, green, blue] = EVEN;
  for (let row = y; row < y + height; row++) words.fill((255 << 24) | (blue << 16) | (green << 8) | red, row * stride + x, row * stride + x + width);
}

const known = new Map();

/** For each pixel, the range [from, to) of the `count` patches that it shows, at least one. */
function spans(count, pixels) {
  const key = `${count} ${pixels}`;
  if (!known.has(key)) {
    const from = Int32Array.from({ length: pixels }, (_, i) => Math.floor((i * count) / pixels));
    known.set(key, [from, from.map((start, i) => Math.max(start + 1, Math.floor(((i + 1) * count) / pixels)))]);
  }
  return known.get(key);
}

function windowLines(context, { rows, columns }, [h, w], [x, y, cell, tall]) {
  context.fillStyle = `rgb(${CHOSEN} / 0.24)`;
  for (const column of columns) context.fillRect(Math.round(x + (column / w) * cell), y, 1, tall);
  for (const row of rows) context.fillRect(x, Math.round(y + (row / h) * tall), cell, 1);
}

/** 256 colours as little-endian RGBA words. */
function tableOf(style) {
  const colours = ramp(style === "heat" ? "inferno" : "light");
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = 3 * (style === "heat" ? i : Math.round(255 * light(i / 255)));
    return (255 << 24) | (colours[at + 2] << 16) | (colours[at + 1] << 8) | colours[at];
  });
}

const STEPS = {
  ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity],
};

/** Arrow keys, Home and End inside the matrix; rows may have fewer heads than others. */
function roam(event, me, go) {
  const step = STEPS[event.key];
  const cell = event.target.closest("[role=gridcell]");
  if (!step || !cell || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation();
  const layers = me.look.layers;
  const layer = Math.max(0, Math.min(layers.length - 1, Number(cell.dataset.layer) + step[0]));
  const heads = layers[layer].heads;
  const from = cell.dataset.head === "mean" ? (step[0] ? Infinity : heads) : Number(cell.dataset.head);
  const head = Math.max(0, Math.min(heads, from + step[1]));
  go({ layer, head: head >= heads ? "mean" : head });
}
