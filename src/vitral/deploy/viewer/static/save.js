// The menu to save or share: the picture as shown, its numbers, a link to the same view, the page as one file.

import { bytes, path, unpack } from "viewer/api.js";
import { chosen, patchOf, readerName } from "viewer/attention.js";
import { compared } from "viewer/compare.js";
import { el, percent, rove } from "viewer/dom.js";
import { asked, methodOf, removalOf } from "viewer/explanation.js";
import { inspected, mapOf } from "viewer/inspect.js";
import { question } from "viewer/neighbours.js";
import { fromSpans } from "viewer/state.js";

/** `show(now, look)` opens the menu, or closes it. */
export function mount(root, app) {
  const menu = el("div", { class: "menu", role: "menu", "aria-label": "Save or share", hidden: true });
  root.append(menu);
  let opener = null;

  function close() {
    if (menu.hidden) return;
    menu.hidden = true;
    opener?.focus();
  }
  document.addEventListener("pointerdown", (event) => root.contains(event.target) || close());
  root.addEventListener("keydown", (event) => {
    if (!["Escape", "Tab"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    close();
  });
  rove(menu, () => [...menu.querySelectorAll("[role=menuitem]")]);

  function item(text, about, run) {
    const button = el("button", { type: "button", role: "menuitem", tabindex: "-1", onclick: async () => {
      try {
        if ((await app.busy(run())) !== "stay") close();
      } catch (error) {
        close();
        app.fail(error);
      }
    } }, el("span", { text }), el("small", { text: about }));
    return button;
  }

  return {
    show(now, look) {
      if (!menu.hidden) return close();
      opener = document.activeElement;
      const name = nameOf(now, look);
      menu.replaceChildren(
        ...(now.mode === "compare" ? [] : [item("Picture", "PNG, as it is shown", async () =>
          hand(await app.picture.toPNG(await captionOf(now, look, app)), `${name}.png`))]),
        item("Numbers", "JSON, of what is shown", async () => hand(
          new Blob([JSON.stringify(await dataOf(now, look, app), null, 1)], { type: "application/json" }), `${name}.json`)),
        ...(app.api.exported ? [] : [
          item("Link", "shows the same again, here", () => copy(location.href, menu, app)),
          item("Page", "one file that works anywhere", async () => hand(
            await pageOf(now, app), `${stem(look.picture.name)}-${stem(app.about.models[now.model].name)}.html`)),
        ]));
      menu.hidden = false;
      menu.firstElementChild.focus();
    },
  };
}

const stem = (name) => name.replace(/\.[^.]{1,5}$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "-").replace(/^-+|-+$/g, "") || "picture";

/** Says what is in the file: the picture, the mode, and what was chosen in it. */
function nameOf(now, look) {
  const parts = { explanation: [now.method], inspect: [now.inspected] }[now.mode] ?? [];
  if (now.mode === "attention" && look.layers.length) {
    const { layer, head } = chosen(now, look);
    parts.push(now.query.replace(",", "-"), `layer${layer}`, head === "mean" ? "mean" : `head${head}`);
  }
  return [stem(look.picture.name), now.mode, ...parts].join("-");
}

/** The caption of a saved picture: picture and model, what is shown, the class and its probability. */
async function captionOf(now, look, app) {
  const model = app.about.models[now.model];
  const said = ({ label, p }) => (p === undefined ? label : `${label} ${percent(p)}`);
  const classOf = (index) => look.answer.top.find((one) => one.index === index) ?? { label: model.labels[index] };
  const [first] = look.answer.top;
  const parts = [look.picture.name, model.name];
  if (now.mode === "attention" && look.layers.length) {
    const { layer, head } = chosen(now, look);
    parts.push(look.layers[layer].name, head === "mean" ? "mean of its heads" : `head ${head}`);
  }
  if (now.mode === "explanation") parts.push(methodOf(now, model).title);
  if (now.mode === "mask" && now.masked) {
    const removal = removalOf(now, model);
    const [h, w] = look.removal.grid;
    const removed = [...fromSpans(now.masked, h * w)];
    const { answer } = await app.api.post(path(now.model, now.image, "mask"), { removed, removal });
    parts.push(`${removed.length} of ${h * w} patches removed (${app.about.removals.find(({ value }) => value === removal).text}): ${said(answer)}`);
    parts.push(`whole: ${said(first)}`);
  } else if (first) {
    parts.push(said(now.mode === "explanation" && now.target !== null ? classOf(now.target) : first));
  }
  return [...parts, "vitral"].join(" · ");
}

/** Downloads a Blob as a file. */
function hand(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Copies a text; if the browser forbids it, shows the text to be copied by hand. */
async function copy(text, menu, app) {
  try {
    await navigator.clipboard.writeText(text);
    app.announce("The link is copied.");
    menu.querySelector("[role=menuitem]:focus small")?.replaceChildren("copied");
    await new Promise((resolve) => setTimeout(resolve, 700));
    return undefined;
  } catch {
    const field = el("input", { type: "text", readonly: true, "aria-label": "The link", value: text });
    menu.append(el("div", { class: "link" }, el("small", { text: "Copy it from here:" }), field));
    field.select();
    return "stay";
  }
}

async function pageOf({ model, image }, app) {
  app.announce("The page is being made; this takes a while.");
  const response = await fetch(`.${path(model, image, "page")}`, { credentials: "same-origin" });
  if (!response.ok) throw new Error((await response.json()).error);
  return response.blob();
}

/** What is shown as JSON: the model, the picture and the mode's own numbers. */
async function dataOf(now, look, app) {
  const { name, architecture } = app.about.models[now.model];
  const { width, height, ...picture } = look.picture;
  const common = { model: name, architecture, picture: { ...picture, width, height }, view: { box: look.box, size: look.view }, mode: now.mode };
  return { ...common, ...(await NUMBERS[now.mode](now, look, app)) };
}

const rows = (values, [h, w]) =>
  Array.from({ length: h }, (_, r) => Array.from(values.subarray(r * w, (r + 1) * w), (value) => Number(value.toPrecision(5))));

const NUMBERS = {
  async attention(now, look, { api }) {
    if (!look.layers.length) return { why: look.why };
    const { layer, head } = chosen(now, look);
    const about = look.layers[layer];
    const read = (await api.get(path(now.model, now.image, "attention", { query: now.query }))).layers[layer];
    if (read.why) return { layer: about.name, why: read.why };
    const at = head === "mean" ? about.heads : head;
    const size = about.grid[0] * about.grid[1];
    const values = Float32Array.from(bytes(read.data).subarray(at * size, (at + 1) * size), (byte) => (byte / 255) * read.tops[at]);
    return {
      what: "share of attention that the reader gives to each patch", reader: readerName(now.query, look), query: now.query,
      layer, layer_name: about.name, head, grid: about.grid, extent: about.extent, values: rows(values, about.grid),
      prefix: Object.fromEntries(look.prefix.map(({ name }, i) => [name, read.prefix[at][i]]).filter(([, share]) => share !== undefined)),
    };
  },
  async explanation(now, look, app) {
    return explained(app, now.image, now.model, asked(methodOf(now, app.about.models[now.model]), now, look.answer.places));
  },
  async mask(now, look) {
    const [h, w] = look.removal.grid;
    const removed = [...fromSpans(now.masked, h * w)];
    return { what: "patches that are taken away, numbered row by row", removal: now.removal, grid: [h, w], removed };
  },
  async compare(now, look, app) {
    const sides = compared(now, app.about.models).map(({ model, method, target }) =>
      explained(app, now.image, model, asked(method, { target, layer: null, query: "own" })));
    return { sides: await Promise.all(sides) };
  },
  async inspect(now, look, { api }) {
    const found = await api.get(path(now.model, now.image, "inspect"));
    const what = inspected(now, found);
    const shown = what && mapOf(found, what, patchOf(now.query) ?? look.grid.map((side) => Math.floor(side / 2)), look);
    return {
      ...(shown && { what: shown.words, grid: shown.grid, extent: shown.extent, values: rows(shown.values, shown.grid), outlying: shown.outlying }),
      attention: found.attention, layers: found.layers, missing: found.missing,
    };
  },
  async neighbours(now, look, { api }) {
    const { neighbours, ...found } = await api.get(question(now), { fresh: true });
    return { ...found, neighbours: neighbours?.map(({ picture, ...one }) => one) };
  },
};

/** A map's numbers, for the request `parameters` of explanation.js. */
async function explained({ api, about }, image, model, parameters) {
  const found = await api.get(path(model, image, "explain", parameters));
  const { grid, extent, values } = unpack(found.map);
  const shown = found.colours
    ? { components: Array.from({ length: 3 }, (_, c) => rows(Float32Array.from(bytes(found.colours)).filter((_, i) => i % 3 === c), grid)) }
    : { values: rows(values, grid) };
  return { model: about.models[model].name, what: found.words, ...parameters, target: found.target, floor: found.floor, grid, extent, ...shown };
}
