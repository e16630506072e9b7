// A walk through the layers, each map changing smoothly into the next.

import { el } from "viewer/dom.js";

const STEP = 700; // ms a layer
const FLOW = 320; // ms of them in which one map becomes the next
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** `button`, `toggle()`, `stop()`. Calls step() for each next layer, which says whether there is one after it. */
export function createWalk(step) {
  let walking = null;
  const button = el("button", { type: "button", class: "play", onclick: toggle });
  const go = () => step() || stop();
  function toggle() {
    if (walking) return stop();
    walking = setInterval(go, still.matches ? 2 * STEP : STEP);
    go();
    show();
  }
  function stop() {
    clearInterval(walking);
    walking = null;
    show();
  }
  function show() {
    button.textContent = walking ? "Pause" : "Play";
    button.title = walking ? "Stay at this layer (p)" : "Walk through the layers (p)";
    button.setAttribute("aria-pressed", Boolean(walking));
  }
  show();
  return { button, toggle, stop, walking: () => walking !== null };
}

/** Paints map after map on the way from one to another of the same size; returns a function that ends it. */
export function flow(from, to, paint) {
  if (still.matches || from?.length !== to.length) {
    paint(to);
    return () => {};
  }
  const began = performance.now();
  let frame = requestAnimationFrame(function next() {
    const share = Math.min(1, (performance.now() - began) / FLOW);
    const eased = share * share * (3 - 2 * share);
    paint(share === 1 ? to : from.map((value, i) => value + eased * (to[i] - value)));
    frame = share < 1 ? requestAnimationFrame(next) : null;
  });
  return () => cancelAnimationFrame(frame);
}
