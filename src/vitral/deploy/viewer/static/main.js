// The page: its picture, model and mode. The module of a mode is loaded when the mode is first shown.

import { createAnswer } from "viewer/answer.js";
import { api, ApiError, LOST, path, unpack } from "viewer/api.js";
import { readerName } from "viewer/attention.js";
import { createBeads } from "viewer/beads.js";
import { learn } from "viewer/colour.js";
import { el, rove, segmented } from "viewer/dom.js";
import { receive } from "viewer/drop.js";
import { announce, busy, dismiss, fail, refuse } from "viewer/feedback.js";
import { createStrip, fillEmpty } from "viewer/gallery.js";
import { bindKeys, fillHelp, keysOf } from "viewer/keys.js";
import { fitting } from "viewer/legal.js";
import { createPicture } from "viewer/picture.js";
import { START, state } from "viewer/state.js";
import { createTheme } from "viewer/theme.js";

const MODES = {
  attention: ["Attention", "what each head reads, layer by layer"],
  explanation: ["Explanation", "what speaks for a class"],
  mask: ["Mask", "remove patches and see the answer change"],
  compare: ["Compare", "two explanations side by side"],
  inspect: ["Inspect", "positions, filters, distances, norms"],
  neighbours: ["Neighbours", "the most similar training images"],
};
const HELP = [
  "A Vision Transformer cuts the picture into patches and lets every patch, and often a class token, read all the others, " +
    "layer by layer. The brighter a patch is, the more the chosen one reads of it; the key below the picture gives the scale.",
  "Click a patch or a bead to choose who reads, and a cell of the matrix to choose layer and head; pointing at them shows the same for a moment. " +
    "Attention shows what is read, not what the answer rests on: Explanation measures that, and Mask tests it.",
];
const RECORDED = "This page is a recording; for other pictures and for masks, run vitral view.";
const NO_MASKS = "Masks need vitral view: they ask the model. Here is its attention, as it was recorded.";
const ALL = new Set(Object.keys(START));

const $ = (id) => document.getElementById(id);
const app = { state, api, announce, fail, busy, picture: createPicture($("picture")), about: null };
app.beads = createBeads($("beads"), {
  choose: (query) => state.set({ query: query === state.get().query ? "own" : query }),
});
const answer = createAnswer($("answer"), { choose: explainClass, point });
const strip = createStrip($("strip"), choose);
const panes = {}; // mode -> promise of {root, pane}
let images = []; // the pictures to choose from
let look = null; // the server's look of the shown model at the shown picture
let current = null; // the {root, pane} that is shown
let looking = null; // AbortController of the request for a look
let refused = null; // the error of the state's picture
let coming = null; // the object URL of a picture during its upload

start().catch(fail);

async function start() {
  const about = (app.about = await busy(api.about()));
  learn(about.colours);
  images = [...about.given];
  $("note").textContent = [RECORDED, about.left_out].filter(Boolean).join(" ");
  $("note").hidden = !api.exported;
  const pick = api.exported ? null : receive($("dropping"), take, refuse);
  const offered = images.length ? images : about.examples;
  if (pick) fillEmpty($("empty"), about, offered, pick, (id) => ((images = [...offered]), choose(id)));
  const bar = createBar(pick);
  state.keepTo(mended);
  state.subscribe((now, changed) => route(now, changed, bar));
  route(state.get(), ALL, bar);
}

function route(now, changed, bar) {
  bar.show(now);
  if (changed.has("mode")) announce(""); // the other mode's announcement no longer holds
  document.body.dataset.mode = now.mode;
  if (changed.has("image") || changed.has("model")) lookAt(now);
  else if (look) show(now, changed);
}

/** The wanted state as far as this page can show it; announces what cannot be shown. */
function mended(values) {
  const now = state.get();
  const of = values.image === now.image && values.model === now.model ? look : null;
  const found = fitting(values, app.about, of, api.exported);
  if (api.exported && values.mode === "mask") refuse(NO_MASKS);
  if (api.exported && ![null, found.image].includes(values.image)) refuse(`This page holds ${images[0].name}; for other pictures, run vitral view.`);
  return found;
}

/** Get the picture's look, showing the picture meanwhile, and then show the mode. */
async function lookAt({ model, image }) {
  looking?.abort();
  looking = new AbortController();
  const { signal } = looking;
  leave(image !== null);
  refused = null;
  if (image === null) return (document.title = "vitral");
  strip.show(images, image);
  const question = path(model, image, "look");
  const known = api.has(question);
  try {
    if (!known && !coming) app.picture.preview(api.pictureURL(image)).catch(() => {}); // the look's error is shown
    const found = await (known ? api.get(question) : busy(api.get(question, { signal })));
    if (signal.aborted) return;
    await app.picture.load(found);
    if (signal.aborted) return;
    forgetComing();
    look = found;
    document.title = `${found.picture.name} · vitral`;
    answer.load(found, app.about.models.length > 1 ? app.about.models[model].name : "");
    app.beads.load(found);
    $("main").dataset.ready = "";
    const wanted = state.get();
    state.set({}, { replace: true }); // fit the state to the look, which is known now
    if (state.get() === wanted) show(wanted, ALL);
  } catch (error) {
    if (signal.aborted) return;
    forgetComing();
    fail(error);
    giveUp(error);
  }
}

/** After an error with the state's picture: show it without maps beside the others, or the start page if it is gone. */
function giveUp(error) {
  refused = error;
  document.title = "vitral";
  leave(error.status !== 404);
  $("main").dataset.refused = "";
  if (error.status !== 404) app.picture.preview(api.pictureURL(state.get().image)).catch(() => {}); // nor perhaps as it is
}

/** Hide what is shown, for another picture or for the start page. */
function leave(another) {
  look = null;
  current?.pane.hide();
  current = null;
  delete $("main").dataset.ready;
  delete $("main").dataset.refused;
  $("main").hidden = !another;
  $("empty").hidden = another;
}

async function show(now, changed) {
  answer.show(now.target);
  app.picture.places(["object", "segment"].includes(look.answer.places) ? look.answer.top : [], now.target);
  app.beads.show(now.query);
  const { name } = look.picture;
  const [h, w] = look.grid;
  app.picture.canvas.setAttribute("aria-label", `${name}, ${h} by ${w} patches; ${readerName(now.query, look)} reads`);
  try {
    const shown = await (panes[now.mode] ??= mounted(now.mode));
    if (state.get().mode !== now.mode || !look) return;
    if (current !== shown) {
      current?.pane.hide();
      current = shown;
      app.picture.marks({});
      app.picture.key(null);
      for (const other of $("pane").children) other.hidden = other !== shown.root;
      changed = ALL;
    }
    shown.pane.show(state.get(), look, changed);
  } catch (error) {
    delete panes[now.mode];
    fail(error);
  }
}

async function mounted(mode) {
  const module = await busy(import(`viewer/${mode}.js`)).catch((error) => {
    throw error instanceof TypeError ? new ApiError(LOST, 0) : error; // a module that cannot be fetched is a TypeError
  });
  const root = el("div", { class: `mode ${mode}`, hidden: true }); // until it is shown: the mode may have changed meanwhile
  $("pane").append(root);
  return { root, pane: module.mount(root, app) };
}

function createBar(pick) {
  const { models } = app.about;
  const title = ({ model, parameters }) => `${model}; ${parameters.toLocaleString("en")} parameters`;
  const model = segmented("Model", models.map((of, i) => ({ value: i, text: of.name, title: title(of) })), (value) =>
    state.set({ model: value, query: "own", layer: null, head: "mean", target: null, masked: "" }));
  $("models").append(models.length > 1 ? model.root : el("span", { text: models[0].name, title: title(models[0]) }));
  const tabs = Object.entries(MODES).filter(([mode]) => pick || mode !== "mask").map(([mode, [text, words]]) =>
    el("button", {
      type: "button", role: "tab", "data-mode": mode, "aria-controls": "pane", text, title: words,
      onclick: () => (closed(mode) ? refuse(closed(mode)) : state.set({ mode })),
    }));
  const closed = (mode) => models[state.get().model].modes[mode];
  $("modes").append(...tabs);
  rove($("modes"), () => tabs, (tab) => tab.click());
  const style = segmented("How it is drawn", [
    { value: "light", text: "Light", title: "patches lit by their weight (l)" },
    { value: "heat", text: "Heat", title: "a scale of colours over the picture (l)" },
  ], (value) => state.set({ style: value }, { replace: true }));
  app.picture.keyRoot.append(style.root);
  createTools(pick);
  return {
    show(now) {
      model.show(now.model);
      style.show(now.style);
      for (const tab of tabs) {
        const on = tab.dataset.mode === now.mode;
        if (closed(tab.dataset.mode)) tab.setAttribute("aria-disabled", "true");
        else tab.removeAttribute("aria-disabled");
        tab.setAttribute("aria-selected", on);
        tab.tabIndex = on ? 0 : -1;
        if (on) $("modes").scrollTo({ left: tab.offsetLeft + tab.offsetWidth / 2 - $("modes").clientWidth / 2 }); // on a telephone
      }
      $("pane").setAttribute("aria-label", MODES[now.mode][0]);
    },
  };
}

function createTools(pick) {
  const button = (kind, text, label, run) =>
    el("button", { type: "button", class: kind, text, "aria-label": label, title: label, onclick: run });
  const saving = el("div", { class: "saving" });
  let menu = null;
  const save = () => {
    if (!look) return refuse("There is nothing to save yet: choose a picture first.");
    menu ??= import("viewer/save.js").then((module) => module.mount(saving, app));
    menu.then((opened) => opened.show(state.get(), look)).catch(fail);
  };
  const help = () => $("help").showModal();
  const keys = keysOf(() => look, { play, save, help, reset, pick });
  bindKeys(keys);
  fillHelp($("help"), keys, HELP);
  if (pick) $("tools").append(button("open", "Open", "Open a picture (o), or drop or paste one", pick));
  saving.append(button("plain", "Save", "Save or share (s)", save));
  $("tools").append(saving, createTheme(), button("icon", "?", "Help and keys (?)", help));
  $("error").querySelector("button").addEventListener("click", dismiss);
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    app.picture.canvas.focus();
  });
}

async function play() {
  if (state.get().mode !== "attention") state.set({ mode: "attention" });
  if (look) (await panes.attention).pane.play();
}

function reset() {
  dismiss();
  state.set({ query: "own", layer: null, head: "mean", target: null });
}

function choose(id) {
  dismiss();
  state.set({ image: id, query: "own", masked: "", target: null });
}

/** While something points at a place of the answer, it is the only one that light falls through. */
function point(one) {
  if (!one?.place) return app.picture.only(null);
  const { grid, extent, values } = unpack(one.place);
  app.picture.only({ values, grid, extent, style: "light", smooth: true });
}

/** Explain a class of the answer, in a mode with explanations. */
function explainClass(index) {
  const mode = ["explanation", "compare"].includes(state.get().mode) ? state.get().mode : "explanation";
  state.set({ mode, target: look.answer.top[0].index === index ? null : index });
}

/** Show a new picture at once, while the server looks at it. */
async function take(file) {
  const { bytes } = app.about.limits;
  const megabytes = (size) => `${Math.ceil(size / 1e6)} MB`;
  if (file.size > bytes) {
    return refuse(`${file.name} has ${megabytes(file.size)}; pictures may have ${megabytes(bytes)}: make it smaller.`);
  }
  forgetComing();
  coming = URL.createObjectURL(file);
  const mine = coming;
  looking?.abort();
  leave(true);
  const seen = app.picture.preview(coming).catch(() => {}); // the server refuses what is no picture, and says why
  try {
    const stored = await busy(api.upload(file));
    await seen;
    if (coming !== mine) return; // another came meanwhile
    dismiss();
    if (!images.some(({ id }) => id === stored.id)) images.push(stored);
    if (stored.id === state.get().image) lookAt(state.get());
    else choose(stored.id);
  } catch (error) {
    if (coming !== mine) return;
    forgetComing();
    fail(error);
    if (refused) giveUp(refused); // show this error last, so that it is the one that stays
    else lookAt(state.get());
  }
}

function forgetComing() {
  if (coming) URL.revokeObjectURL(coming);
  coming = null;
}
