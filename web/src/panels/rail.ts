// The tools, on the left of the slide.

import { h, icon, type Icon } from "../dom";
import { keyText, type Command } from "../commands";
import type { State } from "../state";

const TOOLS = ["click", "box", "brush", "eraser", "select"] as const;

export function rail(state: State, find: (name: string) => Command): HTMLElement {
  const button = (name: string, picture: Icon, text?: string): HTMLButtonElement => {
    const command = find(name);
    const title = `${text ?? command.text} (${keyText(command.keys[0]!)})`;
    const props = { type: "button", class: "tool", title, "aria-label": title, testid: `tool-${name}` };
    return h("button", { ...props, on: { click: () => command.run() } }, icon(picture));
  };
  const tools = TOOLS.map((name) => [name, button(name, name)] as const);
  const sign = button("sign", "plus");
  sign.classList.add("sign");
  const finish = button("finish", "finish", "New object: finish this one");
  const hide = button("hide", "eye");
  const size = brushSize(state, find);

  state.watch(["tool", "positive", "hidden", "current"], (now) => {
    for (const [name, element] of tools) {
      element.setAttribute("aria-pressed", String(now.tool === name));
    }
    const title = now.positive
      ? "Clicks say inside; press for outside (X)"
      : "Clicks say outside; press for inside (X)";
    sign.replaceChildren(icon(now.positive ? "plus" : "minus"));
    sign.classList.toggle("negative", !now.positive);
    sign.title = title;
    sign.setAttribute("aria-label", title);
    sign.setAttribute("aria-pressed", String(!now.positive));
    finish.disabled = now.current === null;
    hide.replaceChildren(icon(now.hidden ? "hidden" : "eye"));
    hide.setAttribute("aria-pressed", String(now.hidden));
    size.hidden = now.tool !== "brush" && now.tool !== "eraser";
  });
  const line = () => h("span", { class: "line" });
  return h(
    "div",
    { class: "rail", role: "toolbar", "aria-label": "Tools", "aria-orientation": "vertical" },
    ...tools.map(([, element]) => element),
    size,
    line(),
    sign,
    finish,
    line(),
    hide,
  );
}

function brushSize(state: State, find: (name: string) => Command): HTMLElement {
  const slider = h("input", {
    type: "range",
    min: 4,
    max: 160,
    "aria-label": "Brush radius",
    title: `Brush radius (${find("smaller").keys[0]} and ${find("larger").keys[0]})`,
    testid: "brush-radius",
  });
  slider.addEventListener("input", () => state.set({ radius: Number(slider.value) }));
  state.watch(["radius"], (now) => {
    slider.value = String(now.radius);
  });
  return h("div", { class: "brush-size" }, slider);
}
