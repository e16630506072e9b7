// Dark, or light where the system or the reader wants it so; what the reader chose is remembered.

import { el } from "viewer/dom.js";

const KEPT = "vitral-theme";
const lightSystem = matchMedia("(prefers-color-scheme: light)");

/** A button that changes it. */
export function createTheme() {
  let theme = remembered() ?? (lightSystem.matches ? "light" : "dark");
  const button = el("button", { type: "button", class: "icon theme", onclick: () => {
    remember((theme = theme === "light" ? "dark" : "light"));
    show();
  } }, el("i", { "aria-hidden": "true" }));
  lightSystem.addEventListener("change", ({ matches }) => {
    if (remembered()) return;
    theme = matches ? "light" : "dark";
    show();
  });
  function show() {
    document.documentElement.dataset.theme = theme;
    const words = theme === "light" ? "Dark theme" : "Light theme";
    button.setAttribute("aria-label", words);
    button.title = words;
  }
  show();
  return button;
}

// A page from a file, or with storage switched off, has none: it then forgets.
function remembered() {
  try {
    const theme = localStorage.getItem(KEPT);
    return ["light", "dark"].includes(theme) ? theme : null;
  } catch {
    return null;
  }
}

function remember(theme) {
  try {
    localStorage.setItem(KEPT, theme);
  } catch {
    // forgotten
  }
}
