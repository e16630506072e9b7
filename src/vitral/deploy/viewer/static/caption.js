// The foot of a picture: its colour scale, and on a saved picture the caption.

import { COOL, light, ramp } from "viewer/colour.js";
import { canvasOf } from "viewer/glass.js";

const [TEXT, LINE, MARGIN] = [15, 21, 16]; // pixels of the page
const [BAR, SWATCH] = [150, 11];
const css = (bytes) => `rgb(${bytes.join(" ")})`;

/** On a canvas, from `from`, below 0 where values speak against, to `to`. */
export function drawScale(scale, style, from, to) {
  const context = scale.getContext("2d");
  const pixels = context.createImageData(scale.width, 1);
  for (let i = 0; i < scale.width; i++) {
    pixels.data.set(colourOf(style, from + ((to - from) * i) / (scale.width - 1)), 4 * i);
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

function colourOf(style, value) {
  if (value < 0) return COOL.map((c) => light(-value) * c);
  const at = 3 * Math.round(255 * (style === "heat" ? value : light(value)));
  return ramp(style === "heat" ? "inferno" : "light").subarray(at, at + 3);
}

/**
 * The foot of a saved picture `width` pixels wide, `unit` of them to one of the page: the key {low, high, from, to, words} with its scale, or
 * null, and the line `caption`. Returns {height, draw(context, top)}, which
 * draws on paper of the page's colour all over the canvas.
 */
export function footOf(key, style, caption, width, unit) {
  const theme = getComputedStyle(document.documentElement);
  const [paper, ink, soft] = ["--paper", "--ink", "--soft"].map((name) => theme.getPropertyValue(name));
  const font = `${TEXT * unit}px ${getComputedStyle(document.body).fontFamily}`;
  const pen = canvasOf(1, 1).getContext("2d");
  pen.font = font;
  const wide = (text) => pen.measureText(text).width;
  const inside = width - 2 * MARGIN * unit;
  const lines = [
    ...(key ? wrapped(key.words, inside, wide).map((text) => [ink, text]) : []),
    ...wrapped(caption, inside, wide).map((text) => [soft, text]),
  ];
  const scaled = key?.high ? partsOf(key, style, unit, wide, soft) : [];
  const rows = flowed(scaled, inside, 14 * unit);
  const height = Math.round((2 * MARGIN + LINE * (rows.length + lines.length)) * unit);
  return {
    height,
    draw(context, top) {
      context.fillStyle = paper;
      context.fillRect(0, 0, width, top + height);
      Object.assign(context, { font, textBaseline: "middle" });
      let y = top + (MARGIN + LINE / 2) * unit;
      for (const row of rows) {
        for (const { part, x } of row) part.draw(context, MARGIN * unit + x, y);
        y += LINE * unit;
      }
      for (const [colour, text] of lines) {
        context.fillStyle = colour;
        context.fillText(text, MARGIN * unit, y);
        y += LINE * unit;
      }
    },
  };
}

/** The scale between its numbers, and for two directions the meaning of each colour: [{width, draw(context, x, y)}]. */
function partsOf({ low, high, from = 0, to = 1 }, style, unit, wide, soft) {
  const gap = 8 * unit;
  const text = (words, context, x, y) => ((context.fillStyle = soft), context.fillText(words, x, y));
  const bar = canvasOf(BAR * unit, 1);
  drawScale(bar, style, from, to);
  const scale = {
    width: wide(low) + bar.width + wide(high) + 2 * gap,
    draw(context, x, y) {
      text(low, context, x, y);
      context.drawImage(bar, x + wide(low) + gap, y - (SWATCH / 2) * unit, bar.width, SWATCH * unit);
      text(high, context, x + wide(low) + bar.width + 2 * gap, y);
    },
  };
  const swatch = (value, words) => ({
    width: SWATCH * unit + gap + wide(words),
    draw(context, x, y) {
      context.fillStyle = css([...colourOf(style, value)]);
      context.fillRect(x, y - (SWATCH / 2) * unit, SWATCH * unit, SWATCH * unit);
      text(words, context, x + SWATCH * unit + gap, y);
    },
  });
  return from < 0 ? [scale, swatch(-0.8, "speaks against it"), swatch(0.8, "speaks for it")] : [scale];
}

/** Parts side by side, in as many rows as needed: [[{part, x}]]. */
function flowed(parts, inside, gap) {
  const rows = [];
  let x = Infinity;
  for (const part of parts) {
    if (x + part.width > inside) rows.push([]), (x = 0);
    rows.at(-1).push({ part, x });
    x += part.width + gap;
  }
  return rows;
}

function wrapped(text, inside, wide) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trimStart();
    if (wide(longer) <= inside || !lines.at(-1)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
