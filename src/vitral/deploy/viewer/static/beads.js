// Beads beside the picture: the queries that are no patches, such as the class token. A bead shines by the attention that it receives.

import { el, percent } from "viewer/dom.js";

/** `load(look)`, `show(query)`, `shares([of each prefix token] or null)`, `onHover(fn(query or undefined))`. Calls choose(query). */
export function createBeads(root, { choose }) {
  const listeners = new Set();
  let beads = [];
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Who reads");
  const hover = (query) => [...listeners].forEach((fn) => fn(query));

  return {
    load(look) {
      beads = readers(look).map((reader) => {
        const share = el("small");
        const button = el("button", {
          type: "button", class: /patch/.test(reader.name) ? "bead average" : "bead", title: reader.title,
          onclick: () => choose(reader.query),
          onpointerenter: (event) => event.pointerType !== "touch" && hover(reader.query),
          onpointerleave: () => hover(undefined),
        }, el("i", { "aria-hidden": "true" }), el("span", { text: reader.name }), share);
        return { ...reader, button, share };
      });
      root.replaceChildren(...beads.map(({ button }) => button));
      root.hidden = !look.layers.length;
    },
    show(query) {
      for (const { button, query: own } of beads) button.setAttribute("aria-pressed", own === query);
    },
    shares(found) {
      for (const { button, token, share } of beads) {
        const part = found && token !== null ? found[token] ?? 0 : null;
        button.style.setProperty("--share", part === null ? 0 : Math.sqrt(part));
        share.textContent = part === null ? "" : percent(part);
        share.title = part === null ? "" : "the share of its attention that goes to this token";
      }
    },
    onHover(fn) {
      listeners.add(fn);
      return () => listeners.delete(fn);
    },
  };
}

/** The token that the head reads, then the other prefix tokens and the average of all patches. */
function readers(look) {
  const plain = look.own.replace(/^the /, "");
  const token = look.prefix.findIndex(({ name }) => name === plain);
  const title = "the answer is read from here";
  const own = { query: "own", name: plain, token: token < 0 ? null : token, title };
  const others = look.prefix
    .map(({ key, name }, i) => ({ query: key, name, token: i, title: `what the ${name} reads` }))
    .filter((_, i) => i !== token);
  const mean = { query: "mean", name: "average patch", token: null, title: "the mean of what all patches read" };
  return plain === mean.name ? [own, ...others] : [own, ...others, mean];
}
