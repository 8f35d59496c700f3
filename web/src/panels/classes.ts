// The classes: choose one by button or key, and edit them.

import type { Actions } from "../actions";
import type { Class, Colour } from "../api";
import type { Command } from "../commands";
import { fill, h, icon, iconButton } from "../dom";
import { css } from "../outlines";
import type { State } from "../state";
import { ask } from "./ask";
import { Dialog } from "./dialog";

export function classesPanel(state: State, actions: Actions, commands: () => Command[]): HTMLElement {
  const list = h("div", { class: "class-list", role: "radiogroup", "aria-label": "Class", testid: "class-list" });
  const editor = new Dialog("Classes", "class-editor", (close) => edit(state, actions, commands(), close));

  state.watch(["classes", "label", "current", "objects"], (now) => {
    const label = state.item?.label ?? now.label;
    const shown = JSON.stringify([state.labels, label]);
    if (list.dataset["shown"] === shown) return;
    list.dataset["shown"] = shown;
    fill(list, ...state.labels.map((each) => classButton(each, each.name === label)));
  });

  function classButton(each: Class, chosen: boolean): HTMLElement {
    const dot = h("span", { class: "dot" });
    dot.style.background = css(each.colour);
    const title = each.key ? `${each.name} (${each.key})` : each.name;
    const props = { type: "button", class: "class", role: "radio", title, testid: `class-${each.name}` };
    return h(
      "button",
      { ...props, "aria-checked": String(chosen), on: { click: () => actions.label(each.name) } },
      dot,
      h("span", { class: "name" }, each.name),
      each.key !== "" && h("kbd", {}, each.key),
    );
  }

  const head = h("h2", {}, "Classes", iconButton("edit", "Edit the classes", "classes-edit", () => editor.open()));
  return h("section", { class: "classes", testid: "classes-panel" }, head, list);
}

const FRESH: Colour[] = [
  [0, 150, 200],
  [210, 90, 160],
  [110, 150, 30],
  [200, 110, 50],
  [90, 110, 210],
  [0, 200, 120],
  [230, 210, 40],
  [140, 40, 160],
  [120, 80, 50],
];

/** The form in which classes are changed; objects of a class that gets another name follow it. */
function edit(state: State, actions: Actions, commands: Command[], close: () => void): Node[] {
  const rows = h("div", { class: "class-rows" });
  const fields: { was: string | null; row: HTMLElement; read(): Class }[] = [];
  const heirs = new Map<string, () => Class>(); // of classes that are removed, for their objects

  function add(each: Class, was: string | null): HTMLInputElement {
    const colour = h("input", { type: "color", value: hex(each.colour), "aria-label": "Colour" });
    const name = h("input", { value: each.name, required: true, maxlength: 200, "aria-label": "Name" });
    const key = h("input", { class: "key", value: each.key, maxlength: 1, "aria-label": "Key" });
    name.dataset["testid"] = "class-name";
    key.dataset["testid"] = "class-key";
    colour.dataset["testid"] = "class-colour";
    const remove = iconButton("delete", "Remove this class", "class-remove", () => void gone());
    async function gone(): Promise<void> {
      const used = [...state.now.objects.values()].filter((item) => item.label === was).length;
      const others = fields.filter((field) => field.row !== row && field.read().name !== "");
      const names = others.map((field, i) => h("option", { value: i }, field.read().name));
      const next = h("select", { testid: "class-heir" }, h("option", { value: -1 }, `${was}, as before`), ...names);
      const choice = h("label", { class: "heir" }, used === 1 ? "Its class from now on" : "Their class from now on", next);
      const count = used === 1 ? "1 object has this class; it keeps" : `${used} objects have this class; they keep`;
      const consequence = `${count} its name unless you give another one.`;
      if (used > 0 && !(await ask(`Remove the class “${was}”?`, consequence, "Remove", choice))) return;
      const heir = others[Number(next.value)];
      if (was !== null && heir) heirs.set(was, heir.read);
      fields.splice(fields.findIndex((field) => field.row === row), 1);
      row.remove();
    }
    const row = h("div", { class: "class-row", testid: "class-row" }, colour, name, key, remove);
    const read = () => ({ name: name.value.trim(), colour: rgb(colour.value), key: key.value.trim().toUpperCase() });
    fields.push({ was, row, read });
    rows.append(row);
    return name;
  }

  for (const each of state.now.classes) add(each, each.name);
  const more = h("button", { type: "button", class: "quiet", testid: "class-add" }, icon("add"), "Add a class");
  more.addEventListener("click", () => {
    const present = fields.map(({ read }) => read());
    const key = [..."123456789"].find((each) => present.every((other) => other.key !== each)) ?? "";
    add({ name: "", colour: unlike(present.map((each) => each.colour)), key }, null).focus();
  });
  const problem = h("p", { class: "problem", role: "alert" });
  const form = h(
    "form",
    {},
    h("div", { class: "class-row head" }, h("span", {}), h("span", {}, "Name"), h("span", {}, "Key"), h("span", {})),
    rows,
    more,
    problem,
    h(
      "footer",
      {},
      h("button", { type: "button", class: "quiet", on: { click: close } }, "Cancel"),
      h("button", { type: "submit", class: "primary", testid: "classes-save" }, "Save"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const classes = fields.map((each) => each.read());
    problem.textContent = wrong(classes, commands);
    if (problem.textContent) return;
    actions.classes(classes);
    const names = new Set(classes.map((each) => each.name));
    const renamed = new Map(
      fields.flatMap(({ was, read }): [string, string][] => (was === null || was === read().name ? [] : [[was, read().name]])),
    );
    for (const [was, read] of heirs) if (names.has(read().name)) renamed.set(was, read().name);
    state.set({ label: renamed.get(state.now.label) ?? state.now.label });
    if ([...state.now.objects.values()].some((item) => renamed.has(item.label))) actions.relabel([...renamed]);
    close();
  });
  return [form];
}

function wrong(classes: Class[], commands: Command[]): string {
  const names = classes.map((each) => each.name);
  const keys = classes.map((each) => each.key).filter((key) => key !== "");
  if (classes.length === 0) return "There must be one class at least.";
  if (names.includes("")) return "Every class needs a name.";
  if (new Set(names).size < names.length) return "Two classes have the same name.";
  if (new Set(keys).size < keys.length) return "Two classes have the same key.";
  const taken = commands.find((each) => each.keys.some((key) => keys.includes(key)));
  const key = taken?.keys.find((each) => keys.includes(each));
  if (taken) return `The key ${key} has a meaning already (${taken.text}); choose another one.`;
  return "";
}

/** The fresh colour that is farthest from all that are present. */
function unlike(present: Colour[]): Colour {
  const far = (a: Colour) => Math.min(...present.map((b) => Math.hypot(...a.map((value, i) => value - b[i]!))));
  return FRESH.reduce((best, each) => (far(each) > far(best) ? each : best));
}

function hex(colour: Colour): string {
  return `#${colour.map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}

function rgb(text: string): Colour {
  return [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16)) as Colour;
}
