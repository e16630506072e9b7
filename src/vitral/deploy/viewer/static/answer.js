// The answer: the top classes as bars; one can be chosen to be explained.

import { el, percent } from "viewer/dom.js";

/** `load(look, the model's name where there are several)`, `show(target)`. Calls choose(index) with a class of the answer. */
export function createAnswer(root, { choose }) {
  const list = el("ol", { class: "bars" });
  const note = el("p", { class: "note" });
  const title = el("h2", { text: "Answer" });
  root.append(title, list, note);
  let top = [];
  return {
    load({ answer, lens }, model) {
      title.textContent = model ? `Answer of ${model}` : "Answer";
      top = answer.top;
      list.replaceChildren(...top.map((of, i) => el("li", {}, bar(of, i, choose))));
      note.textContent = top.length
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

function bar({ index, label, p }, i, choose) {
  const made = el("button", { type: "button", class: "bar", title: `What speaks for ${label}?`, onclick: () => choose(index) },
    el("span", { class: "label", text: label }), el("span", { class: "number", text: percent(p) }),
    el("i", { "aria-hidden": "true" }));
  made.querySelector("i").style.width = `${100 * p}%`;
  if (i === 0) made.classList.add("leading");
  return made;
}
