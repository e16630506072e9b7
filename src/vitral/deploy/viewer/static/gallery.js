// Pictures to choose from: the strip below the large one, and the start page.

import { api } from "viewer/api.js";
import { el, rove } from "viewer/dom.js";

const OFFERED = 6; // pictures on the start page
const SMALL = 64; // pixels under which a picture is shown pixel by pixel

function thumbnail({ id, width, height }, side) {
  const kind = Math.max(width, height) < SMALL ? "tiny" : undefined;
  return el("img", { src: api.pictureURL(id, side), alt: "", loading: "lazy", class: kind });
}

/** `show(images, id of the one shown)`; hidden if there is nothing to choose. Calls choose(id). */
export function createStrip(root, choose) {
  rove(root, () => [...root.children]);
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Pictures");
  let listed = "";
  return {
    show(images, chosen) {
      root.hidden = images.length < 2;
      const list = images.map(({ id }) => id).join();
      if (list !== listed) {
        listed = list;
        root.replaceChildren(...images.map((image) =>
          el("button", { type: "button", "data-id": image.id, "aria-label": image.name, title: image.name, onclick: () => choose(image.id) },
            thumbnail(image, 128))));
      }
      for (const button of root.children) {
        const on = button.dataset.id === chosen;
        button.setAttribute("aria-pressed", on);
        button.tabIndex = on ? 0 : -1;
        if (on) root.scrollTo({ left: button.offsetLeft - root.clientWidth / 2 });
      }
      if (![...root.children].some(({ tabIndex }) => tabIndex === 0) && root.firstChild) root.firstChild.tabIndex = 0;
    },
  };
}

/** The start page: drop or choose a file, or begin with one of the first `images`. */
export function fillEmpty(root, about, images, pick, choose) {
  const examples = images.slice(0, OFFERED).map((image) =>
    el("button", { type: "button", class: "example", onclick: () => choose(image.id) }, thumbnail(image, 320), el("span", { text: image.name })));
  root.replaceChildren(
    el("div", { class: "window", "aria-hidden": "true" }, ...Array.from({ length: 25 }, () => el("i"))),
    el("h2", { text: "Show it a picture" }),
    el("p", { text: `Drop one here, paste one or choose a file, and see what ${about.models[0].name} looks at.` }),
    el("button", { type: "button", class: "open", text: "Choose a picture", onclick: pick }),
    ...(examples.length ? [el("p", { class: "soft", text: "or begin with one of these" }), el("div", { class: "examples" }, ...examples)] : []),
  );
}
