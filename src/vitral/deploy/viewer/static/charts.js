// Small SVG charts of a value by layer: a dot for each head, and lines. Their title and description say what they show.

import { svg } from "viewer/curves.js";

const WIDTH = 340;
const HEIGHT = 190;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 12, 12, 34];
const TICKS = 8; // along the layers, at most about this many

/**
 * A chart of `count` layers. `form` writes a value; `top` is the highest, 0 the lowest, or with `logarithmic` the lowest is found.
 * `dots` are {x, y, text, head}; `lines` {kind, text, points: [[x, y]]}. `pick({x, head})` is called for a click on a layer's column, with the
 * head whose dot was hit, else null. Returns {root, choose(x)}; choose marks a layer, or none with null.
 */
export function layerChart({ title, description, xLabel, count, top, form, dots = [], lines = [], logarithmic = false, pick = null }) {
  const scale = logarithmic ? logScale([...dots.map(({ y }) => y), ...lines.flatMap(({ points }) => points.map(([, y]) => y))]) : linear(top);
  const across = (x) => LEFT + ((x + 0.5) / count) * (WIDTH - LEFT - RIGHT);
  const up = (y) => TOP + (1 - scale.share(y)) * (HEIGHT - TOP - BOTTOM);
  const column = svg("rect", { y: TOP - 4, height: HEIGHT - TOP - BOTTOM + 4, width: 0, class: "column" });
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: pick ? "chart picks" : "chart" },
    svg("title", { text: title }), svg("desc", { text: description }), column);
  for (const y of scale.ticks) {
    root.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(y), y2: up(y), class: y === scale.ticks[0] ? "axis" : "rule" }));
    root.append(svg("text", { x: LEFT - 6, y: up(y) + 4, class: "tick", "text-anchor": "end", text: form(y) }));
  }
  for (let x = 0; x < count; x += Math.ceil(count / TICKS)) {
    root.append(svg("text", { x: across(x), y: HEIGHT - BOTTOM + 15, class: "tick", "text-anchor": "middle", text: x }));
  }
  root.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, class: "tick", "text-anchor": "middle", text: xLabel }));
  for (const { x, y, text, head } of dots) {
    root.append(svg("circle", { cx: across(x).toFixed(1), cy: up(y).toFixed(1), r: 3, class: "dot", "data-head": head }, svg("title", { text })));
  }
  for (const { kind, points } of lines) {
    root.append(svg("polyline", { points: points.map(([x, y]) => `${across(x).toFixed(1)},${up(y).toFixed(1)}`).join(" "), class: kind }));
  }
  if (pick) root.addEventListener("click", (event) => picked(event, root, count, pick));
  return {
    root,
    choose(x) {
      const wide = (WIDTH - LEFT - RIGHT) / count;
      column.setAttribute("x", LEFT + (x ?? 0) * wide);
      column.setAttribute("width", x === null ? 0 : wide);
    },
  };
}

function picked(event, root, count, pick) {
  const { left, width } = root.getBoundingClientRect();
  const x = Math.floor((((event.clientX - left) / width) * WIDTH - LEFT) / ((WIDTH - LEFT - RIGHT) / count));
  const head = event.target.closest("circle")?.dataset.head;
  if (x >= 0 && x < count) pick({ x, head: head === undefined ? null : Number(head) });
}

/** From 0 to a round number at or above `top`. */
function linear(top) {
  const rough = (top || 1) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * unit >= rough * 0.999) * unit;
  const count = Math.max(1, Math.ceil(top / step - 1e-6));
  return { share: (y) => y / (count * step), ticks: Array.from({ length: count + 1 }, (_, i) => i * step) };
}

/** From a power of ten to another, about the values above 0. */
function logScale(values) {
  const some = values.filter((y) => y > 0);
  const low = Math.floor(Math.log10(Math.min(...some, 1)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...some, 1))));
  const step = Math.ceil((high - low) / 5);
  const ticks = [];
  for (let power = low; power <= high; power += step) ticks.push(10 ** power);
  return { share: (y) => Math.max(0, (Math.log10(Math.max(y, 10 ** low)) - low) / (high - low)), ticks };
}

/** The names of a chart's lines and dots, with their strokes: [[kind, words]]. */
export function legend(entries) {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const [kind, words] of entries) {
    const mark = kind === "dot" ? svg("circle", { cx: 9, cy: 5, r: 3, class: kind }) : svg("polyline", { points: "0,5 18,5", class: kind });
    const item = document.createElement("li");
    item.append(svg("svg", { viewBox: "0 0 18 10", class: "chart", "aria-hidden": "true" }, mark), words);
    list.append(item);
  }
  return list;
}
