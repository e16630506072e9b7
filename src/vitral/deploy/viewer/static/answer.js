// The answer: the top classes as bars; one can be chosen to be explained.

import { el, percent } from "viewer/dom.js";

const PLACES = {
  object: ["Point at an object to see it alone, or in the picture to see what it was read from; click it to keep that.", "Nothing was found from the model's score on."],
  segment: ["Point at a segment to see it alone, or in the picture to see what it was read from; click it to keep that.", "Nothing was found from the model's score on."],
  class: ["The classes' shares of the picture. Point at one to see where it is, click it to see what that was read from.", ""],
};

/**
 * `load(look, the model's name where there are several)`, `show(target)`. Calls choose(index) with a class of the answer, or a place, and point(it)
 * while something points at it, else point(null).
 */
export function createAnswer(root, { choose, point }) {
  const list = el("ol", { class: "bars" });
  const note = el("p", { class: "note" });
  const title = el("h2", { text: "Answer" });
  root.append(title, list, note);
  let top = [];
  return {
    load({ answer, lens }, model) {
      title.textContent = model ? `Answer of ${model}` : "Answer";
      top = answer.top;
      list.replaceChildren(...top.map((of, i) => el("li", {}, bar(of, i, { choose, point, places: answer.places }))));
      note.textContent = answer.places ? PLACES[answer.places][top.length ? 0 : 1] : top.length
        ? answer.independent ? "An image can have several of these labels: each probability stands on its own." : ""
        : lens.why ?? "This model was trained without labels: it has no answer.";
      note.hidden = !note.textContent;
    },
    /** The class that is explained; null for the top one. */
    show(target) {
      list.querySelectorAll("button").forEach((button, i) => {
        button.setAttribute("aria-pressed", target === null ? i === 0 : top[i].index === target);
      });
    },
  };
}

function bar(one, i, { choose, point, places }) {
  const { index, label, p } = one;
  const name = places && places !== "class" ? `${index} ${label}` : label;
  const made = el("button", {
    type: "button", class: "bar", title: places ? `What was the ${places} read from?` : `What speaks for ${label}?`, onclick: () => choose(index),
    onpointerenter: () => point(one), onpointerleave: () => point(null), onfocus: () => point(one), onblur: () => point(null),
  },
    el("span", { class: "label", text: name }), el("span", { class: "number", text: percent(p) }),
    el("i", { "aria-hidden": "true" }));
  made.querySelector("i").style.width = `${100 * p}%`;
  if (i === 0) made.classList.add("leading");
  return made;
}
