// The bar at the top: which slide, whether it is saved, and what acts on the whole page.

import { keyText, type Command } from "../commands";
import { fill, h, icon, iconButton, type Icon } from "../dom";
import type { State, Theme } from "../state";
import { facts } from "./slides";

const THEMES: Theme[] = ["system", "light", "dark"];

export interface Parts {
  status: HTMLElement;
  exchange: HTMLElement[];
  card(): void;
  toggleSide(): void;
}

export function header(state: State, find: (name: string) => Command, parts: Parts): HTMLElement {
  const button = (name: string, picture: Icon) => {
    const command = find(name);
    return iconButton(picture, `${command.text} (${keyText(command.keys[0]!)})`, name, () => command.run());
  };
  const menu = button("slides", "menu");
  const [undo, redo] = [button("undo", "undo"), button("redo", "redo")];
  const home = button("home", "home");
  const title = h("div", { class: "title", testid: "slide-title" });
  const theme = iconButton("system", "Colours", "theme", () => {
    const next = THEMES[(THEMES.indexOf(state.now.theme) + 1) % THEMES.length]!;
    state.set({ theme: next });
  });

  state.watch(["slide"], ({ slide }) => {
    fill(title, ...(slide ? [h("b", {}, slide.name), h("small", {}, facts(slide))] : []));
    home.disabled = slide === null;
    document.title = slide ? `${slide.name} · histoclick` : "histoclick";
  });
  state.watch(["canUndo", "canRedo", "sending"], ({ canUndo, canRedo, sending }) => {
    undo.disabled = !canUndo && sending.unsent === 0;
    redo.disabled = !canRedo && sending.unsent === 0;
  });
  state.watch(["theme"], (now) => {
    const text = `Colours: ${now.theme === "system" ? "as the system" : now.theme}`;
    fill(theme, icon(now.theme));
    theme.title = text;
    theme.setAttribute("aria-label", text);
  });
  const line = () => h("span", { class: "line" });
  return h(
    "header",
    { class: "top" },
    menu,
    h("span", { class: "brand" }, "histo", h("i", {}, "click")),
    title,
    h("span", { class: "space" }),
    parts.status,
    undo,
    redo,
    line(),
    home,
    ...parts.exchange,
    line(),
    iconButton("model", "Model card", "model", parts.card),
    theme,
    button("help", "help"),
    iconButton("panel", "Show or hide the panel of objects", "side-toggle", parts.toggleSide),
  );
}
