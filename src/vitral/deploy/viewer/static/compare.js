// The compare mode: two methods, or two models, on one picture, each with its curves; and which one is more faithful.

import { path } from "viewer/api.js";
import { curves } from "viewer/curves.js";
import { el, percent } from "viewer/dom.js";
import { asked, drawn, removalChoice, removalOf, sentence, unscored } from "viewer/explanation.js";
import { createPicture } from "viewer/picture.js";

export function mount(root, app) {
  const verdict = el("p", { class: "verdict", role: "status" });
  const agreement = el("p", { class: "note" });
  const removal = el("div", { class: "option" });
  const sides = ["left", "right"].map((name) => createSide(name, app, { hovered, choose }));
  root.append(
    el("div", { class: "pane-head" }, el("h2", { text: "Two explanations of one picture" }), removal),
    el("div", { class: "together" }, verdict, agreement),
    el("div", { class: "sides" }, ...sides.map((side) => side.root)));

  let look = null;
  let question = null;
  let controller = null;
  const now = () => app.state.get();

  /** The state holds both sides once one of them is chosen. */
  function choose(name, text) {
    const [left, right] = compared(now(), app.about.models).map(({ model, method }) => `${model}:${method.name}`);
    app.state.set({ left, right, [name]: text });
  }

  /** Mark on both sides the place under the pointer. */
  function hovered(from, patch) {
    for (const side of sides) side.point(from, patch);
  }

  async function draw() {
    const state = now();
    const both = compared(state, app.about.models);
    const removed = both.map((side) => removalOf(state, app.about.models[side.model]));
    const choice = removed[0] === removed[1] ? removed[0] : "mean";
    const control = removalChoice(app, app.about.models[both[0].model]);
    control.show(choice);
    removal.replaceChildren(el("span", { text: "Removed patches are" }), control.root);
    const next = `/api/images/${state.image}/compare?left=${both[0].model}:${both[0].method.name}&right=${both[1].model}:${both[1].method.name}`
      + targetsOf(both) + `&removal=${choice}`;
    const pictures = sides.map((side, i) => side.show(both[i], state));
    if (next === question) return;
    controller?.abort();
    controller = new AbortController();
    const { signal } = controller;
    question = next;
    verdict.className = "verdict waiting";
    verdict.textContent = "Testing both maps";
    agreement.textContent = "";
    try {
      await Promise.all(pictures);
      if (signal.aborted) return;
      const why = both.map((side) => unscored(app.about.models[side.model], side.method)).find(Boolean);
      for (let i = 0; i < 2; i++) await sides[i].score(choice, signal);
      verdict.classList.remove("waiting");
      if (why) return void (verdict.textContent = why);
      const found = await app.busy(app.api.get(next, { signal }));
      verdict.textContent = sentence(found.verdict) + apart(both);
      agreement.textContent = found.agreement === null ? "A map without contrast puts the patches in no order, so how far the two agree cannot be said."
        : `The maps agree to ${found.agreement.toFixed(2).replace("-", "−")} `
        + "(rank correlation: 1 puts the patches in the same order, 0 in unrelated ones, −1 in the opposite).";
      app.announce(found.verdict);
    } catch (error) {
      if (error.name === "AbortError") return;
      [question, verdict.textContent] = [null, ""];
      app.fail(error);
    }
  }

  return {
    show(state, newLook, changed) {
      look = newLook;
      if (changed.size) draw();
    },
    hide() {
      controller?.abort();
      question = null;
      sides.forEach((side) => side.hide());
    },
  };
}

/** What is compared: {model, method, target} of each side. */
export function compared({ left, right, model, target }, models) {
  const at = (text) => {
    const [number, name] = text?.split(":") ?? [];
    const found = models[number]?.methods.find((method) => method.name === name && !method.why);
    return found ? { model: Number(number), method: found } : null;
  };
  const first = at(left) ?? { model, method: defined(models[model])[0] };
  const other = models.length > 1 && !left && !right ? models.findIndex((_, i) => i !== model) : null;
  const second = at(right) ?? (other === null
    ? { model: first.model, method: defined(models[first.model]).find((method) => method !== first.method) ?? first.method }
    : { model: other, method: defined(models[other]).find(({ name }) => name === first.method.name) ?? defined(models[other])[0] });
  return [first, second].map((side) => ({ ...side, target: targetIn(models[side.model], models[model], target) }));
}

/** The methods that a model has, those worth comparing first in front. */
const defined = ({ methods, preferred }) => preferred.map((name) => methods.find((method) => method.name === name));

/** The state's class, which is one of the chosen model's, in a model that may number its classes differently. */
function targetIn(model, chosen, target) {
  if (target === null || model === chosen) return target;
  const index = model.labels.indexOf(chosen.labels[target]);
  return index < 0 ? null : index;
}

const targetsOf = (both) => both.map(({ target, method }, i) =>
  target === null || !method.takes.includes("target") ? "" : `&${["left", "right"][i]}_target=${target}`).join("");

/** A warning for two models. */
const apart = ([left, right]) => left.model === right.model ? ""
  : " Each map is tested on its own model, and its gain also depends on how sure that model is.";

/** [row, column] of the other grid's patch at the centre of a patch of this grid, both {grid, extent, box}; null if there is none. */
function sameIn(from, to, { row, column }) {
  const middle = (i, axis) => from.box[axis] + ((i + 0.5) / from.grid[axis]) * from.extent[axis] * from.box[axis + 2];
  const place = (at, axis) => Math.floor(((at - to.box[axis]) / (to.extent[axis] * to.box[axis + 2])) * to.grid[axis]);
  const found = [place(middle(row, 0), 0), place(middle(column, 1), 1)];
  return found.every((i, axis) => i >= 0 && i < to.grid[axis]) ? found : null;
}

/** One side: its choice, picture, and score. */
function createSide(name, app, { hovered, choose }) {
  const chooser = el("div", { class: "chooser" });
  const place = el("div", { class: "side-picture" });
  const said = el("p", { class: "said" }); // this side's own answer, where the sides have two models
  const score = el("div", { class: "score" });
  const root = el("section", { class: "side", "aria-label": name === "left" ? "Left" : "Right" }, chooser, place, score);
  const picture = createPicture(place);
  let look = null;
  let side = null;
  let question = null;
  let answer = null;
  let controller = null;
  const me = {
    root,
    /** Outline the place of this map over a patch of a look, which may be the other model's; nothing without a patch. */
    point(from, patch) {
      const { grid, extent } = picture.shown();
      const place = patch && look && sameIn(from, { grid, extent, box: look.box }, patch);
      picture.marks({ outlying: place ? [place[0] * grid[1] + place[1]] : [] });
    },
    /** The picture of a side; a promise of it. */
    async show(next, state) {
      side = next;
      const { image, style } = state;
      fillChooser();
      const wanted = path(side.model, image, "explain", asked(side.method, { target: side.target, layer: null, query: "own" }));
      if (wanted === question) return void paint(style);
      controller?.abort();
      controller = new AbortController();
      const { signal } = controller;
      [question, answer] = [wanted, null];
      score.replaceChildren();
      try {
        const found = await app.busy(app.api.get(path(side.model, image, "look"), { signal }));
        look = found;
        const [first] = look.answer.top;
        said.textContent = first ? `${app.about.models[side.model].name} says ${first.label}, ${percent(first.p)}` : "";
        said.hidden = !first || app.about.models.length < 2;
        await picture.load(look);
        answer = await app.busy(app.api.get(wanted, { signal }));
        if (question === wanted) paint(app.state.get().style);
      } catch (error) {
        if (question === wanted) question = null;
        throw error;
      }
    },
    /** Its curves; a promise of them. */
    async score(removal, signal) {
      const model = app.about.models[side.model];
      const why = unscored(model, side.method);
      if (why) return void score.replaceChildren(el("p", { class: "note", text: why }));
      score.replaceChildren(el("p", { class: "note waiting", text: "Testing it" }));
      const parameters = { ...asked(side.method, { target: side.target, layer: null, query: "own" }), removal };
      const found = await app.busy(app.api.get(path(side.model, app.state.get().image, "score", parameters), { signal }));
      score.replaceChildren(curves(found, side.method.said));
    },
    hide() {
      controller?.abort();
      question = null;
    },
  };
  picture.on("hover", (patch) => hovered(look, patch));

  function paint(style) {
    if (!answer) return;
    const { painted, key } = drawn(answer, style);
    picture.paint(painted);
    picture.key(key);
    picture.canvas.setAttribute("aria-label", key.words);
  }

  function fillChooser() {
    const models = app.about.models;
    const set = (model, method) => {
      const there = models[model].methods.some((one) => one.name === method && !one.why);
      choose(name, `${model}:${there ? method : defined(models[model])[0].name}`);
    };
    const select = (label, options, value, change) => {
      const made = el("select", { "aria-label": label, onchange: () => change(made.value) }, ...options);
      made.value = value;
      return made;
    };
    const method = select("Method", models[side.model].methods.map((one) =>
      el("option", { value: one.name, text: one.title, disabled: Boolean(one.why), title: one.why ?? one.about })), side.method.name,
      (value) => set(side.model, value));
    const model = models.length < 2 ? [] : [select("Model", models.map((one, i) => el("option", { value: i, text: one.name })), side.model,
      (value) => set(Number(value), side.method.name))];
    const held = document.activeElement?.closest?.(".chooser") === chooser ? document.activeElement.getAttribute("aria-label") : null;
    chooser.replaceChildren(method, ...model, el("span", { class: "soft", text: side.method.about }), said);
    if (held) chooser.querySelector(`[aria-label=${held}]`)?.focus();
  }
  return me;
}
