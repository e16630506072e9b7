// The explanation mode: the evidence for a class, by a chosen method, and a test of how faithful the map is to the model.

import { path, bytes, unpack } from "viewer/api.js";
import { patchOf, readerName } from "viewer/attention.js";
import { curves } from "viewer/curves.js";
import { el, rove, segmented } from "viewer/dom.js";
import { refuse } from "viewer/feedback.js";

const SUGGESTED = 40; // class names offered while typing
const REST = 150; // milliseconds for which the pointer rests on an object before it is explained

/** The chosen method, or the first that the model allows. */
export const methodOf = ({ method }, { methods }) => methods.find(({ name, why }) => name === method && !why) ?? methods.find(({ why }) => !why);

/** The parameters of a request for a map: those of the state that the method takes. */
export function asked(method, { target, layer, query }, places = null) {
  const reader = method.name === "similarity" && !patchOf(query) ? "own" : query; // similarity takes patches only
  return {
    method: method.name,
    target: places || method.takes.includes("target") ? target : null,
    layer: method.takes.includes("layer") ? layer : null,
    query: !places && method.takes.includes("query") && reader !== "own" ? reader : null,
  };
}

/**
 * An answer of `explain` as `picture.paint` and `picture.key` take it: a map from its smallest to its largest value, or, if the method has a neutral
 * value, from that, with evidence against the class as negative values in the same unit. A map without contrast is drawn evenly, and its key says so.
 */
export function drawn(answer, style) {
  const { grid, extent, low, high, values } = unpack(answer.map);
  const painted = { grid, extent, style, smooth: false };
  const words = answer.words[0].toUpperCase() + answer.words.slice(1);
  if (answer.colours) return { painted: { ...painted, values: null, colours: bytes(answer.colours) }, key: { low: "", high: "", words } };
  if (answer.map.even) return { painted: { ...painted, values: null, even: true }, key: { low: "", high: "", words } };
  const digits = Math.max(0, Math.min(9, 1 - Math.floor(Math.log10(high - low || Math.abs(high) || 1)))); // as many as tell low from high
  const short = (value) => String(Number(value.toFixed(digits))).replace("-", "−");
  if (answer.floor === null) {
    const lit = values.map((value) => (value - low) / (high - low));
    return { painted: { ...painted, values: lit }, key: { low: short(low), high: short(high), words } };
  }
  const zero = answer.floor;
  const unit = Math.max(high - zero, zero - low) || 1;
  const from = Math.min(0, (low - zero) / unit);
  const to = Math.max(0, (high - zero) / unit);
  return {
    painted: { ...painted, values: values.map((value) => (value - zero) / unit) },
    key: { low: short(Math.min(low, zero)), high: short(Math.max(high, zero)), from, to, words },
  };
}

/** Why a model, or a map of it, cannot be scored; null if it can. */
export function unscored(model, method) {
  return model.removals.mean ?? method.unscored;
}

/** The chosen removal, or mean if the model does not allow it. */
export const removalOf = ({ removal }, model) => (model.removals[removal] ? "mean" : removal);

/** A control for what becomes of removed patches. */
export const removalChoice = (app, model) =>
  segmented("What becomes of removed patches", app.about.removals.map((one) => ({ ...one, why: model.removals[one.value] })), (removal) =>
    app.state.set({ removal }, { replace: true }));

export function mount(root, app) {
  const methods = el("div", { class: "methods", role: "radiogroup", "aria-label": "Method" });
  const meaning = el("p", { class: "note meaning", "aria-hidden": "true" }); // where there is no room for a line each
  const options = el("div", { class: "options" });
  const score = el("section", { class: "score", "aria-label": "How true is it?" });
  root.append(
    el("div", { class: "pane-head" }, el("h2", { text: "Explanation" })),
    el("div", { class: "explaining" }, el("div", {}, methods, meaning, options), score));

  let look = null;
  let model = null; // as `about` describes it
  let question = null; // of the map that is shown, or asked for
  let answer = null;
  let scoring = null; // the question of the score that is shown, or asked for
  let controller = null;
  let ends = [];
  let [pointed, resting] = [null, null]; // the object under the pointer, and the timer until it is explained
  const now = () => app.state.get();
  const method = () => methodOf(now(), model);

  const says = ({ why, about }) => () => (meaning.textContent = why ?? about);

  function fillMethods() {
    methods.replaceChildren(...model.methods.map(({ name, title, about, why }) =>
      el("button", {
        type: "button", role: "radio", class: "method", "aria-disabled": why ? "true" : undefined, "data-method": name,
        onpointerenter: says({ why, about }), onclick: () => (why ? says({ why })() : app.state.set({ method: name })),
      }, el("b", { text: title }), el("span", { text: why ?? about }))));
  }
  rove(methods, () => [...methods.querySelectorAll("button:not([aria-disabled])")], (button) => button.click());

  function showMethod() {
    const one = method();
    says(one)();
    methods.onpointerleave = says(one);
    for (const button of methods.children) {
      const on = button.dataset.method === one.name;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
    }
  }

  async function explain() {
    const one = method();
    const { model: number, image } = now();
    const next = path(number, image, "explain", asked(one, now(), look.answer.places));
    const chosen = now().layer !== null || now().query !== "own";
    if (app.api.exported && question === null && chosen && !app.api.has(next)) { // the choices of another mode are not recorded for this one
      return app.state.set({ layer: null, query: "own" }, { replace: true });
    }
    if (next !== question) {
      controller?.abort();
      controller = new AbortController();
      [question, answer, scoring] = [next, null, null];
      showOptions();
      waiting("The map is computed first, then tested");
      const { signal } = controller;
      try {
        const found = await app.busy(app.api.get(next, { signal }));
        if (signal.aborted) return;
        answer = found;
        app.announce(found.words);
      } catch (error) {
        if (error.name === "AbortError") return;
        question = null;
        app.fail(error);
        score.replaceChildren(el("p", { class: "note", text: error.message }));
        app.state.set({ layer: null, query: "own", target: null }, { replace: true }); // which every picture has
        return;
      }
      showOptions();
    }
    if (!answer) return;
    paint();
    test(one).catch((error) => {
      if (error.name === "AbortError") return;
      scoring = null;
      app.fail(error);
      score.replaceChildren(el("p", { class: "note", text: error.message }));
    });
  }

  function paint(shown = answer) {
    const { painted, key } = drawn(shown, now().style);
    app.picture.paint(painted);
    app.picture.key(key);
    mark(null);
  }

  /** What an object was read from, while the pointer rests on it in the picture; with null that of the chosen one again. */
  function point(one) {
    if (one?.index === pointed?.index) return;
    clearTimeout(resting);
    pointed = one;
    if (!one) return answer && paint();
    const { model: number, image } = now();
    const next = path(number, image, "explain", asked(method(), { ...now(), target: targetOf(one) }, look.answer.places));
    if (app.api.exported && !app.api.has(next)) return;
    resting = setTimeout(async () => {
      try {
        const found = await app.busy(app.api.get(next, { signal: controller.signal }));
        if (pointed === one) paint(found);
      } catch (error) {
        if (error.name !== "AbortError") app.fail(error);
      }
    }, REST);
  }

  function mark(ghost) {
    app.picture.marks({ query: asked(method(), now(), look.answer.places).query ? patchOf(now().query) : null, ghost });
  }

  /** The curves come after the map, as they take hundreds of forward passes. */
  async function test(one) {
    const why = unscored(model, one);
    if (why) return void score.replaceChildren(el("h3", { text: "How true is it?" }), el("p", { class: "note", text: why }));
    const removal = removalOf(now(), model);
    const { model: number, image } = now();
    const next = path(number, image, "score", { ...asked(one, now(), look.answer.places), removal });
    if (next === scoring) return;
    scoring = next;
    waiting("Testing it with some hundred forward passes: patches are removed in the map's order, in random orders and from the centre");
    const found = await app.busy(app.api.get(next, { signal: controller.signal }));
    if (scoring !== next) return;
    const choice = removalChoice(app, model);
    choice.show(removal);
    score.replaceChildren(
      el("h3", { text: "How true is it?" }),
      el("p", { class: "verdict", text: sentence(found.verdict) }),
      curves(found, one.said),
      el("div", { class: "option" }, el("span", { text: "Removed patches are" }), choice.root));
    app.announce(found.verdict);
  }

  const waiting = (text) => score.replaceChildren(el("h3", { text: "How true is it?" }), el("p", { class: "note waiting", text }));

  function showOptions() {
    const one = method();
    const parts = [];
    if (one.takes.includes("target")) parts.push(targetOption());
    if (answer?.layers) parts.push(layerOption(answer.layers));
    if (one.takes.includes("query") && look.layers.length && !look.answer.places) parts.push(queryOption(one));
    options.replaceChildren(...parts);
  }

  const targetOf = ({ index }) => (index === look.answer.top[0].index ? null : index);

  function targetOption() {
    if (look.answer.places) {
      const one = look.answer.top.find(({ index }) => index === answer?.target?.index);
      return el("div", { class: "option" }, el("span", { text: "What was read for" }), el("b", { text: one ? `${one.index} ${one.label}` : "the surest" }));
    }
    const { index, label } = answer?.target ?? { index: now().target, label: model.labels[now().target] ?? look.answer.top[0].label };
    return classField(model.labels, label, (chosen) => {
      if (chosen !== index) app.state.set({ target: chosen === look.answer.top[0].index ? null : chosen });
    });
  }

  function layerOption(layers) {
    const at = now().layer ?? layers.length - 1;
    const name = el("output", { text: layers[at] });
    const range = el("input", {
      type: "range", min: 0, max: layers.length - 1, value: at, "aria-label": "Layer",
      oninput: () => (name.textContent = layers[range.value]),
      onchange: () => app.state.set({ layer: Number(range.value) === layers.length - 1 ? null : Number(range.value) }),
    });
    range.setAttribute("aria-valuetext", layers[at]);
    return el("label", { class: "option" }, el("span", { text: "Layer" }), range, name);
  }

  function queryOption(one) {
    const reads = asked(one, now(), look.answer.places).query;
    const verb = one.name === "similarity" ? "Alike to" : "Read by";
    const whole = one.name === "similarity" ? "the whole picture" : readerName("own", look);
    const reader = !reads ? whole : patchOf(reads) ? "the outlined patch" : readerName(reads, look);
    return el("div", { class: "option" }, el("span", { text: verb }), el("b", { text: reader }),
      reads ? el("button", { type: "button", class: "plain", text: "as the answer", onclick: () => app.state.set({ query: "own" }) })
        : el("span", { class: "soft", text: "click a patch to ask for it" }));
  }

  return {
    show(state, newLook, changed) {
      if (!ends.length) {
        ends = [
          app.picture.on("hover", (patch) => {
            if (look.answer.places) return point(patch && placeAt(look.answer, patch.at, look));
            if (method().takes.includes("query") && look.layers.length) mark(patch && [patch.row, patch.column]);
          }),
          app.picture.on("pin", ({ row, column, at }) => {
            if (look.answer.places) {
              const one = placeAt(look.answer, at, look);
              return one && app.state.set({ target: targetOf(one) });
            }
            const query = `${row},${column}`;
            if (method().takes.includes("query") && look.layers.length) app.state.set({ query: query === now().query ? "own" : query });
          }),
        ];
      }
      if (newLook !== look || changed.has("model")) {
        [look, model, question] = [newLook, app.about.models[state.model], null];
        fillMethods();
        showMethod();
        app.picture.paint({ values: null, grid: look.grid, extent: look.extent });
        app.picture.key(null);
      }
      if (changed.has("method")) showMethod();
      explain();
    },
    hide() {
      controller?.abort();
      clearTimeout(resting);
      pointed = null;
      [question, scoring] = [null, null];
      ends.forEach((end) => end());
      ends = [];
    },
  };
}

/** The smallest of an answer's places that holds a spot of the picture, [x, y]; null where none does. */
function placeAt({ top }, [x, y], { box: [boxTop, boxLeft, boxH, boxW] }) {
  const holds = ({ box: [x0, y0, x1, y1], place }) => {
    if (x < x0 || x >= x1 || y < y0 || y >= y1) return false;
    const { grid: [h, w], values } = unpack(place);
    const [row, column] = [Math.floor((y - boxTop) / boxH * h), Math.floor((x - boxLeft) / boxW * w)];
    return values[row * w + column] > 0.5;
  };
  const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
  return top.filter(holds).sort((a, b) => area(a) - area(b))[0] ?? null;
}

/** A sentence with a capital and a full stop. */
export const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

/** A field for a class by its name; `choose(index)` once it is one of the labels. */
function classField(labels, label, choose) {
  const offers = el("datalist", { id: "classes" });
  const input = el("input", { type: "text", list: "classes", value: label, autocomplete: "off", spellcheck: "false", "aria-label": "Class" });
  const offer = () => {
    const typed = input.value.trim().toLowerCase();
    const found = labels.filter((one) => one.toLowerCase().includes(typed)).slice(0, SUGGESTED);
    offers.replaceChildren(...found.map((value) => el("option", { value })));
  };
  const take = () => {
    const index = labels.indexOf(input.value.trim());
    if (index >= 0) return choose(index);
    refuse(`There is no class ${JSON.stringify(input.value)}; type one of the model's, as they are offered.`);
    input.value = label;
  };
  input.addEventListener("focus", () => (input.select(), offer()));
  input.addEventListener("input", offer);
  input.addEventListener("change", take);
  return el("label", { class: "option" }, el("span", { text: "What speaks for" }), input, offers);
}
