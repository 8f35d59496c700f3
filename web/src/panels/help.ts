// Keys, and what mouse and fingers do.

import { keyParts, type Command } from "../commands";
import { h } from "../dom";
import { Dialog } from "./dialog";

const MOUSE: [string, string][] = [
  ["Left click, tap", "inside the object (or outside, as chosen with X)"],
  ["Right click, Ctrl- or Alt-click", "outside the object"],
  ["Drag, two fingers", "move the slide"],
  ["Wheel, pinch", "zoom"],
  ["Space + drag, middle button", "move the slide while a tool draws"],
];

const CLASSES = () => [
  h("dt", {}, keys("1"), "…", keys("9")),
  h("dd", {}, "Class of the selected and the next objects"),
];

export function helpDialog(list: () => Command[]): Dialog {
  return new Dialog("Keys and gestures", "help", () => {
    const groups = [...new Set(list().map((each) => each.group))];
    const sections = groups.map((group) =>
      h(
        "section",
        {},
        h("h3", {}, group),
        h(
          "dl",
          { class: "keys" },
          ...list()
            .filter((each) => each.group === group)
            .flatMap((each) => [h("dt", {}, ...each.keys.flatMap((key, i) => [i > 0 && "or", keys(key)])), h("dd", {}, each.text)]),
          ...(group === "Objects" ? CLASSES() : []),
        ),
      ),
    );
    const mouse = h(
      "section",
      {},
      h("h3", {}, "Mouse and fingers"),
      h("dl", { class: "keys" }, ...MOUSE.flatMap(([what, does]) => [h("dt", {}, what), h("dd", {}, does)])),
    );
    return [h("div", { class: "help" }, mouse, ...sections)];
  });
}

function keys(key: string): HTMLElement {
  return h("span", { class: "chord" }, ...keyParts(key).map((each) => h("kbd", {}, each)));
}
