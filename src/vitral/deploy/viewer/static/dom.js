// Small tools to make elements and to write numbers.

/** An element: properties (class, text, on…, aria-…, data-…) and children. Absent and false properties are left out. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** 0.1234 to "12.3 %"; smaller numbers get more digits. */
export function percent(share) {
  const hundred = 100 * share;
  if (hundred > 0 && hundred < 0.1) return "<0.1 %";
  if (hundred > 99.9 && hundred < 100) return ">99.9 %";
  return `${hundred.toFixed(hundred < 9.95 && hundred > 0 ? 1 : 0)} %`;
}

/**
 * A segmented control: one of several, with roving focus.
 * `choices` are {value, text, title?, why?}; one with a `why` is disabled and says why.
 * Returns {root, show(value)}.
 */
export function segmented(label, choices, choose) {
  const buttons = choices.map(({ value, text, title, why }) =>
    el("button", {
      type: "button", role: "radio", "data-value": value, text, title: why ?? title,
      "aria-disabled": why ? "true" : undefined,
      onclick: () => why || choose(value),
    }));
  const root = el("div", { class: "segmented", role: "radiogroup", "aria-label": label }, ...buttons);
  rove(root, () => buttons.filter((b) => !b.hasAttribute("aria-disabled")), (button) => button.click());
  return {
    root,
    show(value) {
      for (const button of buttons) {
        const on = button.dataset.value === String(value);
        button.setAttribute("aria-checked", on);
        button.tabIndex = on ? 0 : -1;
      }
      if (!buttons.some((b) => b.tabIndex === 0) && buttons.length) buttons[0].tabIndex = 0;
    },
  };
}

/** Arrow keys, Home and End move the focus among the `items()` of `root`; `moved(item)` follows. */
export function rove(root, items, moved = () => {}) {
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const all = items();
    const at = all.indexOf(document.activeElement);
    if (at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = all[Math.max(0, Math.min(all.length - 1, at + step))];
    next.focus();
    moved(next);
  });
}
