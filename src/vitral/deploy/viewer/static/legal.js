// Fits a state to what the page can show: a link may be old, cut short or for another model.

import { patchOf } from "viewer/attention.js";
import { fromSpans, START, toSpans } from "viewer/state.js";

/**
 * The state with everything that this page cannot show replaced: `about` from the server, `look` for the state's picture and model, or null
 * while unknown, and `exported` for a recorded page.
 */
export function fitting(values, about, look, exported) {
  const first = about.given[0]?.id ?? null;
  const image = exported ? first : values.image ?? first;
  const number = about.models[values.model] ? values.model : START.model;
  const model = about.models[number];
  const mode = (exported && values.mode === "mask") || model.modes[values.mode] ? START.mode : values.mode;
  const known = ({ methods }, name) => methods.some((method) => method.name === name && !method.why);
  const side = (text) => {
    const [of, name] = text?.split(":") ?? [];
    return about.models[of] && known(about.models[of], name) ? text : null;
  };
  const found = {
    ...values, image, mode, model: number,
    method: known(model, values.method) ? values.method : START.method,
    target: values.target !== null && targets(values.target, model, look) ? values.target : null,
    left: side(values.left), right: side(values.right),
    removal: !Object.hasOwn(model.removals, values.removal) || (mode !== "compare" && model.removals[values.removal])
      ? START.removal : values.removal,
  };
  const ownLayers = mode === "explanation" && model.methods.find(({ name }) => name === found.method).takes.includes("layer");
  return look ? { ...found, ...within(found, look, ownLayers) } : found;
}

/** Whether there is such a class, or of a model that finds objects such an object. */
function targets(target, model, look) {
  if (look?.answer.places) return look.answer.top.some(({ index }) => index === target);
  return model.modes.mask ? true : target < model.labels.length; // of objects it is known with the look
}

/** The parts of the state that must lie in the picture's grids and among the model's layers, unless a method counts its own layers. */
function within({ query, layer, head, masked }, look, ownLayers) {
  const { layers, removal: { grid: [h, w] } } = look;
  return {
    query: asks(query, look) ? query : START.query,
    layer: layer !== null && (ownLayers || layer < layers.length) ? layer : null,
    head: layers.some(({ heads }) => head < heads) ? head : START.head, // in a pyramid the layers have different numbers of heads
    masked: toSpans(fromSpans(masked, h * w)),
  };
}

/** Whether this picture and model have such a query. */
function asks(query, { grid, prefix, layers }) {
  const patch = patchOf(query);
  if (!layers.length) return false;
  if (patch) return patch[0] < grid[0] && patch[1] < grid[1];
  return query === "mean" || prefix.some(({ key }) => key === query);
}
