// Everything that has a key: what it is called, its keys, and what it does. The keyboard, the
// buttons' titles and the help all read this list.

import type { Actions } from "./actions";
import type { Stage } from "./stage";
import type { State, Tool } from "./state";

export interface Command {
  name: string;
  group: string;
  text: string;
  keys: string[];
  run(): void;
}

export interface Dialogs {
  help(): void;
  slides(): void;
}

const BRUSH = { least: 4, most: 160, step: 1.2 };
const PAN = 80; // screen px

export function commands(state: State, actions: Actions, stage: Stage, dialogs: Dialogs): Command[] {
  const list: Command[] = [];
  const group = (name: string, rows: [string, string, string[], () => void][]) => {
    for (const [id, text, keys, run] of rows) list.push({ name: id, group: name, text, keys, run });
  };
  const tool = (name: Tool) => () => state.set({ tool: name });
  const brush = (by: number) => () => {
    const radius = Math.round(state.now.radius * by);
    state.set({ radius: Math.min(BRUSH.most, Math.max(BRUSH.least, radius)) });
  };
  group("Tools", [
    ["click", "Click", ["C"], tool("click")],
    ["select", "Select", ["V"], tool("select")],
    ["box", "Box", ["B"], tool("box")],
    ["brush", "Brush", ["P"], tool("brush")],
    ["eraser", "Eraser", ["E"], tool("eraser")],
    ["sign", "Clicks: inside or outside", ["X"], () => state.set({ positive: !state.now.positive })],
    ["smaller", "Smaller brush", ["["], brush(1 / BRUSH.step)],
    ["larger", "Larger brush", ["]"], brush(BRUSH.step)],
  ]);
  group("Objects", [
    ["finish", "New object: finish this one", ["N", "Enter", "Escape"], () => actions.finish()],
    ["undo", "Undo", ["Ctrl+Z"], () => actions.undo()],
    ["redo", "Redo", ["Ctrl+Shift+Z", "Ctrl+Y"], () => actions.redo()],
    ["tidy", "Keep only the parts that were clicked", ["T"], () => actions.tidy()],
    ["delete", "Delete the selected object", ["Delete", "Backspace"], () => actions.delete()],
  ]);
  group("View", [
    ["hide", "Hide or show all outlines", ["H"], () => state.set({ hidden: !state.now.hidden })],
    ["fill", "Fill or outline", ["F"], () => state.set({ fill: !state.now.fill })],
    ["in", "Zoom in", ["+", "="], () => stage.zoom(1.5)],
    ["out", "Zoom out", ["-"], () => stage.zoom(1 / 1.5)],
    ["home", "Whole slide", ["0", "Home"], () => stage.home()],
    ["left", "Move left", ["ArrowLeft"], () => stage.pan(-PAN, 0)],
    ["right", "Move right", ["ArrowRight"], () => stage.pan(PAN, 0)],
    ["up", "Move up", ["ArrowUp"], () => stage.pan(0, -PAN)],
    ["down", "Move down", ["ArrowDown"], () => stage.pan(0, PAN)],
  ]);
  group("Page", [
    ["slides", "Slide list", ["S"], () => dialogs.slides()],
    ["help", "This help", ["?"], () => dialogs.help()],
  ]);
  return list;
}

const MAC = /Mac|iP(hone|ad)/.test(globalThis.navigator?.platform ?? "");
const SIGNS: Record<string, string> = {
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  Escape: "Esc",
  Ctrl: MAC ? "⌘" : "Ctrl",
  Shift: MAC ? "⇧" : "Shift",
};

/** The parts of a key as they are written on keyboards. */
export function keyParts(key: string): string[] {
  const parts = key === "+" ? ["+"] : key.split("+");
  return parts.map((each) => SIGNS[each] ?? each);
}

export function keyText(key: string): string {
  return keyParts(key).join(MAC ? "" : "+");
}
