// New pictures: dropped anywhere, pasted, or chosen.

import { el } from "viewer/dom.js";

/** Calls take(file) with the first picture of each; `veil` is shown while something is dragged over the page. Returns pick(). */
export function receive(veil, take, refuse) {
  const input = el("input", { type: "file", accept: "image/*", hidden: true, onchange: () => {
    if (input.files.length) take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  } });
  document.body.append(input);
  let depth = 0; // the number of nested elements that the drag has entered
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  const show = (on) => (veil.hidden = !on);
  addEventListener("dragenter", (event) => carries(event) && show(++depth > 0));
  addEventListener("dragleave", (event) => carries(event) && show(--depth > 0));
  addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    show((depth = 0));
    if (!carries(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    else refuse("This is not a file: save the picture first, then drop it.");
  });
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea")) return;
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (file) take(file);
  });
  return () => input.click();
}
