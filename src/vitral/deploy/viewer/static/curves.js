// Deletion and insertion curves as small SVG charts: how the answer falls as patches are removed in a map's order, and rises as they come back.

import { el } from "viewer/dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 260;
const HEIGHT = 170;
const LEFT = 38;
const RIGHT = 60; // for the labels at the curves' ends
const TOP = 12;
const BOTTOM = 34;
const APART = 14; // between two labels

const across = (share) => LEFT + share * (WIDTH - LEFT - RIGHT);
const up = (p) => TOP + (1 - p) * (HEIGHT - TOP - BOTTOM);
const points = (shares, values) => shares.map((share, i) => `${across(share).toFixed(1)},${up(values[i]).toFixed(1)}`);

export function svg(tag, properties = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Heights for labels so that none covers another: in the same order, moved as little as possible. */
function spread(heights, lowest = HEIGHT - BOTTOM) {
  const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b]);
  const placed = [...heights];
  for (let i = 1; i < order.length; i++) placed[order[i]] = Math.max(placed[order[i]], placed[order[i - 1]] + APART);
  let limit = lowest;
  for (const i of order.reverse()) {
    placed[i] = Math.min(placed[i], limit);
    limit = placed[i] - APART;
  }
  return placed;
}

/** The share at which the map is furthest from the random orders' mean: labels are placed there. */
function furthest(own, mean) {
  let best = 0;
  for (let i = 1; i < own.length; i++) if (Math.abs(own[i] - mean[i]) > Math.abs(own[best] - mean[best])) best = i;
  return best;
}

/**
 * One chart of a score's answer. `which` is "deletion" or "insertion"; `name` is the map's in words.
 * The map's line is drawn strong, the random orders' as their mean in a band from the lowest to the highest, the centre's dashed.
 */
function chart(score, which, name) {
  const values = which === "deletion" ? "deleted" : "inserted";
  const { shares, map, random, centre } = score;
  const [mean, low, high] = random[values];
  const title = which === "deletion" ? "as patches go" : "as patches come back";
  const [own, [chance, spreads], middle] = [map, random, centre].map((one) => one[which]);
  const areas = `area ${own.toFixed(3)}, random ${chance.toFixed(3)} ± ${spreads.toFixed(3)}, centre ${middle.toFixed(3)}`;
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "curves" },
    svg("title", { text: `Probability of ${score.target} ${title}, in the order of ${name}` }),
    svg("desc", { text: `From ${percentOf(map[values][0])} to ${percentOf(map[values].at(-1))}; ${areas}.` }));
  for (const p of [0, 0.5, 1]) {
    root.append(svg("line", { x1: LEFT, x2: across(1), y1: up(p), y2: up(p), class: p ? "rule" : "axis" }));
    root.append(svg("text", { x: LEFT - 6, y: up(p) + 4, class: "tick", "text-anchor": "end", text: percentOf(p) }));
  }
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    root.append(svg("text", { x: across(share), y: HEIGHT - BOTTOM + 14, class: "tick", "text-anchor": anchor, text: percentOf(share) }));
  }
  root.append(svg("text", { x: across(0.5), y: HEIGHT - 4, class: "tick", "text-anchor": "middle",
    text: which === "deletion" ? "of the patches removed" : "of the patches put back" }));
  const band = [...points(shares, high), ...points(shares, low).reverse()].join(" ");
  root.append(svg("polygon", { points: band, class: "band" }));
  root.append(svg("polyline", { points: points(shares, mean).join(" "), class: "random" }));
  root.append(svg("polyline", { points: points(shares, centre[values]).join(" "), class: "centre" }));
  root.append(svg("polyline", { points: points(shares, map[values]).join(" "), class: "map" }));
  root.append(...words(shares, [
    ["map", "the map", map[values]],
    ["random", "random", mean],
    ["centre", "centre", centre[values]],
  ], furthest(map[values], mean)));
  return root;
}

/** The lines' names at the right edge, each with a thin leader to its line where the map is furthest from random. */
function words(shares, lines, at) {
  const x = across(shares[at]);
  const heights = spread(lines.map(([, , values]) => up(values[at])));
  return lines.flatMap(([kind, text, values], i) => {
    const y = up(values[at]);
    return [
      svg("circle", { cx: x, cy: y, r: 2.5, class: `dot ${kind}` }),
      svg("polyline", { points: `${x + 4},${y} ${across(1) + 2},${heights[i]} ${across(1) + 8},${heights[i]}`, class: "leader" }),
      svg("text", { x: across(1) + 11, y: heights[i] + 4, class: `word ${kind}`, text }),
    ];
  });
}

const percentOf = (p) => `${Math.round(100 * p)} %`;

/** Both charts and the table of areas under them, from an answer of `score`. */
export function curves(score, name) {
  const rows = [
    ["the map", "map", score.map.deletion, score.map.insertion],
    ["random orders", "random", ...["deletion", "insertion"].map((which) => score.random[which])],
    ["centre first", "centre", score.centre.deletion, score.centre.insertion],
  ];
  const cell = (value) => el("td", { text: Array.isArray(value) ? `${value[0].toFixed(3)} ± ${value[1].toFixed(3)}` : value.toFixed(3) });
  return el("div", { class: "scored" },
    el("figure", {}, el("figcaption", { text: "Deletion" }, el("small", { text: "should fall fast" })), chart(score, "deletion", name)),
    el("figure", {}, el("figcaption", { text: "Insertion" }, el("small", { text: "should rise fast" })), chart(score, "insertion", name)),
    el("table", { class: "areas" },
      el("caption", { class: "unseen", text: "Areas under the curves" }),
      el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "area under the curve" }),
        el("th", { scope: "col", text: "deletion ↓", title: "lower is better" }),
        el("th", { scope: "col", text: "insertion ↑", title: "higher is better" }))),
      el("tbody", {}, ...rows.map(([text, kind, deletion, insertion]) =>
        el("tr", { class: kind }, el("th", { scope: "row", text }), cell(deletion), cell(insertion))))));
}
