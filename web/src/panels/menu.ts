// A small panel that opens below, or above, a button and closes when one clicks elsewhere.

import { fill, h } from "../dom";

/** `content` is made anew each time the menu opens. */
export function menu(
  button: HTMLElement,
  testid: string,
  content: (close: () => void) => Node[],
): HTMLElement {
  const panel = h("div", { class: "menu", popover: "auto", testid });
  const close = () => panel.hidePopover();
  button.setAttribute("aria-haspopup", "true");
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => panel.togglePopover());
  panel.addEventListener("beforetoggle", (event) => {
    const opens = (event as ToggleEvent).newState === "open";
    button.setAttribute("aria-expanded", String(opens));
    if (opens) fill(panel, ...content(close));
  });
  panel.addEventListener("toggle", (event) => {
    if ((event as ToggleEvent).newState !== "open") return;
    place(panel, button.getBoundingClientRect());
    panel.querySelector<HTMLElement>("button, input, select, a")?.focus({ preventScroll: true });
  });
  panel.addEventListener("keydown", (event) => step(panel, event));
  document.body.append(panel);
  return panel;
}

function place(panel: HTMLElement, by: DOMRect): void {
  const { offsetWidth: width, offsetHeight: height } = panel;
  const below = by.bottom + 6;
  const top = below + height < innerHeight ? below : by.top - height - 6;
  const left = by.left + width < innerWidth - 8 ? by.left : by.right - width;
  panel.style.top = `${Math.max(8, top)}px`;
  panel.style.left = `${Math.max(8, left)}px`;
}

function step(panel: HTMLElement, event: KeyboardEvent): void {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const buttons = [...panel.querySelectorAll<HTMLElement>("button:not(:disabled)")];
  const at = buttons.indexOf(document.activeElement as HTMLElement);
  const next = at + (event.key === "ArrowDown" ? 1 : -1);
  buttons[(next + buttons.length) % buttons.length]?.focus();
  event.preventDefault();
}
