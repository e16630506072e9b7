// The neighbours mode: the training images with the most similar features, and the votes of their labels.

import { path } from "viewer/api.js";
import { el, percent } from "viewer/dom.js";

const AGAIN = 700; // ms between two requests for the progress of the index
const SMALL = 64; // pixels of a side up to which each is shown as a square

/** The request for a picture's neighbours. */
export const question = ({ model, image }) => path(model, image, "neighbours");

export function mount(root, app) {
  const place = el("div", { class: "nearest", "aria-live": "polite" });
  root.append(el("div", { class: "pane-head" }, el("h2", { text: "The nearest training images" })), place);
  let [shown, asked, asking, timer] = [null, null, null, null]; // the requests that are answered and under way

  async function ask() {
    asking = new AbortController();
    const { signal } = asking;
    try {
      const found = await app.busy(app.api.get(asked, { signal, fresh: true }));
      if (signal.aborted) return;
      if (found.state === "indexing") {
        show(progress(found));
        timer = setTimeout(ask, AGAIN);
        return;
      }
      shown = asked;
      show(...(found.state === "none" ? absent(found) : answer(found)));
    } catch (error) {
      if (error.name === "AbortError") return;
      asked = null; // so that it is requested again
      place.replaceChildren();
      app.fail(error);
    }
  }
  function stop() {
    clearTimeout(timer);
    asking?.abort();
    asked = null;
  }
  const show = (...children) => place.replaceChildren(...children);

  return {
    show(state, look) {
      app.picture.paint({ values: null, grid: look.grid, extent: look.extent, style: state.style });
      app.picture.marks({});
      app.picture.key(null);
      if ([shown, asked].includes(question(state))) return;
      stop();
      asked = question(state);
      show(el("p", { class: "soft waiting", text: "Searching" }));
      ask();
    },
    hide: stop,
  };
}

function progress({ doing, done, total }) {
  const words = total ? `${doing}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : doing;
  return el("div", { class: "indexing" }, el("p", { text: "The training images are being indexed, once; meanwhile the rest of the page works." }),
    el("progress", { max: total || 1, value: total ? done : undefined, "aria-label": words }), el("p", { class: "soft waiting", text: words }));
}

const absent = ({ why }) => [el("p", { text: "There are no neighbours to show." }), el("p", { class: "soft", text: `${why}.` })];

function answer({ words, neighbours, votes }) {
  const few = neighbours.filter(({ same, labels }) => !same && labels.length).length;
  return [
    el("p", { class: "soft", text: `By cosine of the features that the head reads: ${words}.` }),
    ...(votes.length ? [el("h3", { text: `Votes of ${few === 1 ? "its label" : `these ${few} labels`}` })] : []),
    el("ol", { class: "votes" }, ...votes.map(vote)),
    el("ol", { class: "neighbours" }, ...neighbours.map(neighbour)),
  ];
}

function vote({ label, share }) {
  const bar = el("i", { "aria-hidden": "true" });
  bar.style.width = `${100 * share}%`;
  return el("li", {}, el("span", { text: label }), el("span", { text: percent(share) }), bar);
}

function neighbour({ name, labels, similarity, same, picture }) {
  const image = el("img", { src: picture, alt: "" });
  image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL));
  const label = labels.join(", ");
  return el("li", { title: name }, image,
    el("span", { text: label || name }),
    el("small", { text: same ? "the picture itself" : similarity.toFixed(3) }));
}
