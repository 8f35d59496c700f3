// How outlines are drawn.

import { h, icon } from "../dom";
import type { State } from "../state";

export function displayPanel(state: State): HTMLElement {
  const opacity = h("input", {
    type: "range",
    min: 0,
    max: 100,
    "aria-label": "Opacity",
    title: "Opacity of the fill",
    testid: "opacity",
  });
  opacity.addEventListener("input", () => state.set({ opacity: Number(opacity.value) / 100, fill: true }));
  const share = h("output", {});
  const choice = (fill: boolean) =>
    h(
      "button",
      {
        type: "button",
        title: `${fill ? "Fill" : "Outline only"} (F)`,
        testid: fill ? "draw-fill" : "draw-outline",
        on: { click: () => state.set({ fill }) },
      },
      icon(fill ? "fill" : "outline"),
      fill ? "Fill" : "Outline",
    );
  const [filled, outlined] = [choice(true), choice(false)];
  state.watch(["opacity", "fill"], (now) => {
    opacity.value = String(Math.round(now.opacity * 100));
    share.textContent = `${opacity.value} %`;
    filled.setAttribute("aria-pressed", String(now.fill));
    outlined.setAttribute("aria-pressed", String(!now.fill));
  });
  const here = h("input", { type: "checkbox", testid: "here" });
  here.addEventListener("change", () => state.set({ here: here.checked }));
  const first = h(
    "label",
    { class: "check", title: "Shows what this browser makes of a click until the server has answered: for slow networks" },
    here,
    "Answer clicks here first",
  );
  state.watch(["here", "info"], (now) => {
    here.checked = now.here;
    first.hidden = !now.info?.model.decoder;
  });
  return h(
    "section",
    { class: "display", testid: "display-panel" },
    h("h2", {}, "Display"),
    h("div", { class: "segmented" }, filled, outlined),
    h("label", { class: "slider" }, h("span", {}, "Opacity"), opacity, share),
    first,
  );
}
