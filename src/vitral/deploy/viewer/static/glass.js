// Drawing a picture with a map on it. A `frame` is {width, height, box: [left, top, width, height], unit} of a canvas, in its own
// pixels: the box is the part that the model sees, the unit is one pixel of the page. Nothing here knows of pages or pointers.

import { against, calm, CHOSEN, glowing, heated, leaden, lit } from "viewer/colour.js";

const LEAD = "rgb(9 10 13)";
const COOL = `rgb(${CHOSEN})`;
const BEVELLED = 14; // pixels of the page from which a pane has a bevel
const SEEN = 8; // pixels of the page from which a patch's borders are shown

export function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width));
  canvas.height = Math.max(1, Math.round(height));
  return canvas;
}

/** The picture at the frame's size, four ways: as it is, as dark lead, with light behind it, and calmed for a heat map. */
export function groundsOf(image, { width, height }) {
  const plain = canvasOf(width, height);
  const context = plain.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = width / image.naturalWidth < 3; // the pixels of a small picture stay visible
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, plain.width, plain.height);
  const changed = (change) => {
    const canvas = canvasOf(width, height);
    const pixels = context.getImageData(0, 0, plain.width, plain.height);
    change(pixels.data);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  };
  return {
    plain, lead: changed(leaden), glow: changed(glowing), calm: changed(calm),
    scratch: canvasOf(width, height), small: canvasOf(1, 1),
  };
}

/** A grid's corner and the size of one patch. The last patches may reach beyond the box. */
export function tiling({ box }, [h, w], [reachH, reachW]) {
  const [left, top, width, height] = box;
  return { left, top, cellW: (width * reachW) / w, cellH: (height * reachH) / h };
}

/**
 * The picture with its map: {values [h * w] in 0..1, below 0 what speaks against, or null, even: no light falls on one patch more than on
 * another, grid, extent, style, smooth, colours [h * w * 3] or null}.
 */
export function paintMap(context, grounds, frame, painted) {
  const { values, even, colours, style } = painted;
  const ground = even || (style === "heat" && (values || colours)) ? grounds.calm : values || colours ? grounds.lead : grounds.plain;
  context.globalCompositeOperation = "copy";
  context.drawImage(ground, 0, 0);
  context.globalCompositeOperation = "source-over";
  context.save();
  clipTo(context, frame.box);
  const rgba = colours ? inFull(colours) : values === null ? null : style === "heat" ? heated(values) : lit(values);
  if (rgba) {
    const map = smallMap(grounds, painted.grid, rgba);
    if (colours || style === "heat") layMap(context, frame, painted, map, colours ? 0.85 : 1);
    else shine(context, grounds, frame, painted, map);
    if (!colours && values.some((value) => value < 0)) {
      layMap(context, frame, painted, smallMap(grounds, painted.grid, against(values)), 1);
    }
  }
  leadLines(context, frame, painted);
  context.restore();
  leaveOut(context, frame);
}

function clipTo(context, [left, top, width, height]) {
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
}

function inFull(colours) {
  const out = new Uint8ClampedArray((colours.length / 3) * 4).fill(255);
  for (let i = 0; i < colours.length / 3; i++) for (let c = 0; c < 3; c++) out[4 * i + c] = colours[3 * i + c];
  return out;
}

/** RGBA [h * w * 4] as a canvas with one pixel a patch; the canvas is reused. */
function smallMap({ small }, [h, w], rgba) {
  if (small.width !== w || small.height !== h) [small.width, small.height] = [w, h];
  small.getContext("2d").putImageData(new ImageData(rgba, w, h), 0, 0);
  return small;
}

/** A small map over its grid's place. */
function layMap(context, frame, { grid, extent, smooth }, map, opacity) {
  const { left, top, cellW, cellH } = tiling(frame, grid, extent);
  context.imageSmoothingEnabled = Boolean(smooth);
  context.globalAlpha = opacity;
  context.drawImage(map, left, top, cellW * grid[1], cellH * grid[0]);
  context.globalAlpha = 1;
}

/** Each pane lets light through by its weight, and shines a little on its neighbours. */
function shine(context, { glow, scratch }, frame, painted, map) {
  const through = scratch.getContext("2d");
  through.globalCompositeOperation = "copy";
  through.drawImage(glow, 0, 0);
  through.globalCompositeOperation = "destination-in"; // clears everything outside the grid
  layMap(through, frame, painted, map, 1);
  context.drawImage(scratch, 0, 0);
  context.globalCompositeOperation = "screen";
  layMap(context, frame, { ...painted, smooth: true }, map, 0.13);
  context.globalCompositeOperation = "source-over";
}

/** The lead between the panes, if they are large enough, and the bevel of larger ones. */
function leadLines(context, frame, { values, grid, extent, style, colours }) {
  const { left, top, cellW, cellH } = tiling(frame, grid, extent);
  const cell = Math.min(cellW, cellH);
  if (cell < SEEN * frame.unit) return;
  const solid = values !== null && style === "light" && !colours;
  if (solid && cell >= BEVELLED * frame.unit) bevel(context, frame, { left, top, cellW, cellH });
  const width = solid ? Math.min(3 * frame.unit, Math.max(frame.unit, 0.05 * cell)) : frame.unit;
  context.fillStyle = LEAD;
  context.globalAlpha = solid ? 0.92 : 0.28;
  for (let column = 1; column < grid[1]; column++) {
    context.fillRect(Math.round(left + column * cellW - width / 2), frame.box[1], Math.round(width), frame.box[3]);
  }
  for (let row = 1; row < grid[0]; row++) {
    context.fillRect(frame.box[0], Math.round(top + row * cellH - width / 2), frame.box[2], Math.round(width));
  }
  context.globalAlpha = 1;
}

/** One pane's shading repeated over all: glass is a little brighter at its upper left. */
function bevel(context, frame, { left, top, cellW, cellH }) {
  const side = 32;
  bevel.pane ??= canvasOf(side, side);
  const shade = bevel.pane.getContext("2d");
  const across = shade.createLinearGradient(0, 0, side, side);
  across.addColorStop(0, "rgb(255 255 255 / 0.5)");
  across.addColorStop(0.45, "rgb(128 128 128 / 0)");
  across.addColorStop(1, "rgb(0 0 0 / 0.42)");
  shade.clearRect(0, 0, side, side);
  shade.fillStyle = across;
  shade.fillRect(0, 0, side, side);
  const tiles = context.createPattern(bevel.pane, "repeat");
  tiles.setTransform(new DOMMatrix([cellW / side, 0, 0, cellH / side, left, top]));
  context.globalCompositeOperation = "soft-light";
  context.fillStyle = tiles;
  context.fillRect(...frame.box);
  context.globalCompositeOperation = "source-over";
}

/** Darkens what the model does not see, and frames what it sees. */
function leaveOut(context, { width, height, box: [left, top, boxW, boxH], unit }) {
  if (boxW >= width - 1 && boxH >= height - 1) return;
  context.fillStyle = "rgb(9 10 13 / 0.66)";
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(left, top, boxW, boxH);
  context.fill("evenodd");
  context.strokeStyle = "rgb(255 255 255 / 0.75)";
  context.lineWidth = unit;
  context.setLineDash([5 * unit, 4 * unit]);
  context.strokeRect(left + unit / 2, top + unit / 2, boxW - unit, boxH - unit);
  context.setLineDash([]);
}

/**
 * On an empty canvas: {query, ghost: [row, column] of `asking`'s grid, borders and outlying (numbers of patches) of the painted grid,
 * masked: Set of maskGrid's patches, cursor: one of them}.
 */
export function paintMarks(context, frame, marks, painted, asking, masking) {
  context.clearRect(0, 0, frame.width, frame.height);
  context.save();
  clipTo(context, frame.box);
  if (marks.borders) paintBorders(context, frame, marks.borders, painted);
  if (marks.masked) paintMasked(context, frame, marks.masked, masking);
  for (const k of marks.outlying ?? []) outline(context, frame, [Math.floor(k / painted.grid[1]), k % painted.grid[1]], painted, COOL, 1.5);
  if (marks.ghost) outline(context, frame, marks.ghost, asking, "rgb(255 255 255 / 0.85)", 1.25);
  if (marks.query) outline(context, frame, marks.query, asking, COOL, 2.5);
  if (marks.cursor) outline(context, frame, marks.cursor, masking, COOL, 2.5);
  context.restore();
}

/** Boxes of places [{index, label, box: [x0, y0, x1, y1] in pixels of the picture}] with their names; the chosen one stands out. */
export function paintPlaces(context, frame, places, chosen, { width, height }) {
  const [across, down, unit] = [frame.width / width, frame.height / height, frame.unit];
  context.save();
  context.font = `${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { index, label, box } of [...places].sort((a, b) => (a.index === chosen) - (b.index === chosen))) {
    const [x, y, w, h] = [box[0] * across, box[1] * down, (box[2] - box[0]) * across, (box[3] - box[1]) * down];
    const on = index === chosen;
    for (const [style, thick] of [["rgb(9 10 13 / 0.8)", on ? 4.5 : 3], [on ? COOL : "rgb(255 255 255 / 0.7)", on ? 2.5 : 1.25]]) {
      context.strokeStyle = style;
      context.lineWidth = thick * unit;
      context.strokeRect(x, y, w, h);
    }
    const name = `${index} ${label}`;
    const wide = context.measureText(name).width + 8 * unit;
    const [left, top] = [Math.min(x, frame.width - wide), Math.max(0, y - 17 * unit)];
    context.fillStyle = "rgb(9 10 13 / 0.8)";
    context.fillRect(left, top, wide, 17 * unit);
    context.fillStyle = on ? COOL : "rgb(255 255 255 / 0.9)";
    context.fillText(name, left + 4 * unit, top + 9 * unit);
  }
  context.restore();
}

function paintBorders(context, frame, { rows, columns }, { grid, extent }) {
  const { left, top, cellW, cellH } = tiling(frame, grid, extent);
  context.fillStyle = COOL;
  context.globalAlpha = 0.45;
  const width = Math.max(1, Math.round(1.25 * frame.unit));
  const [boxLeft, boxTop, boxW, boxH] = frame.box;
  for (const column of columns) context.fillRect(Math.round(left + column * cellW - width / 2), boxTop, width, boxH);
  for (const row of rows) context.fillRect(boxLeft, Math.round(top + row * cellH - width / 2), boxW, width);
  context.globalAlpha = 1;
}

/** Removed patches: dark panes, hatched to tell them from dark parts of the picture. */
function paintMasked(context, frame, masked, { grid, extent }) {
  const { left, top, cellW, cellH } = tiling(frame, grid, extent);
  context.beginPath();
  for (const patch of masked) {
    const [row, column] = [Math.floor(patch / grid[1]), patch % grid[1]];
    context.rect(left + column * cellW, top + row * cellH, cellW, cellH);
  }
  context.save();
  context.clip();
  context.fillStyle = "rgb(14 15 19 / 0.93)";
  context.fillRect(0, 0, frame.width, frame.height);
  context.strokeStyle = "rgb(255 255 255 / 0.13)";
  context.lineWidth = frame.unit;
  context.beginPath();
  const step = 7 * frame.unit;
  for (let x = -frame.height; masked.size && x < frame.width; x += step) {
    context.moveTo(x, frame.height);
    context.lineTo(x + frame.height, 0);
  }
  context.stroke();
  context.restore();
}

/** With a dark edge, to be visible on any picture; never smaller than can be seen. */
function outline(context, frame, [row, column], { grid, extent }, colour, thick) {
  const { left, top, cellW, cellH } = tiling(frame, grid, extent);
  const grow = Math.max(0, (SEEN * frame.unit - Math.min(cellW, cellH)) / 2);
  const [boxLeft, boxTop, boxW, boxH] = frame.box;
  const x = left + column * cellW - grow;
  const y = top + row * cellH - grow;
  const w = Math.min(x + cellW + 2 * grow, boxLeft + boxW) - x;
  const h = Math.min(y + cellH + 2 * grow, boxTop + boxH) - y;
  for (const [style, width] of [["rgb(9 10 13 / 0.9)", thick + 2.5], [colour, thick]]) {
    context.strokeStyle = style;
    context.lineWidth = width * frame.unit;
    context.strokeRect(x, y, w, h);
  }
}
