// The objects of the slide, the newest first. A row is made anew only when its object changed.

import type { Actions } from "../actions";
import type { Item } from "../api";
import { h, iconButton } from "../dom";
import { areaText, bounds, inParts, rings } from "../geometry";
import type { Stage } from "../stage";
import type { State } from "../state";
import { css } from "../outlines";
import { ENOUGH, trust } from "../trust";

export function objectsPanel(state: State, actions: Actions, stage: Stage): HTMLElement {
  const list = h("div", { class: "object-list", role: "listbox", "aria-label": "Objects", testid: "object-list" });
  const count = h("span", { class: "count", testid: "object-count" });
  const rows = new Map<number, { item: Item; colour: string; row: HTMLElement }>();
  let renamed: HTMLElement | null = null; // the row whose name is being written: it stays as it is
  const empty = h("p", { class: "empty" }, "No objects yet: click inside a structure on the slide.");

  function show(): void {
    const { objects, current } = state.now;
    for (const [id, { row }] of rows) {
      if (objects.has(id) || row === renamed) continue;
      row.remove();
      rows.delete(id);
    }
    let below: Element | null = null;
    for (const item of objects.values()) {
      const colour = css(state.colour(item.label));
      const known = rows.get(item.id);
      let row = known?.row;
      if (!row || (row !== renamed && (known?.item !== item || known.colour !== colour))) {
        const next = objectRow(item, colour);
        if (row) row.replaceWith(next);
        row = next;
        rows.set(item.id, { item, colour, row });
      }
      if (row.parentElement !== list || row.nextElementSibling !== below) list.insertBefore(row, below);
      below = row;
      const chosen = item.id === current;
      const fresh = chosen && row.getAttribute("aria-selected") !== "true";
      row.setAttribute("aria-selected", String(chosen));
      if (fresh) row.scrollIntoView({ block: "nearest" });
    }
    count.textContent = String(objects.size);
    if (objects.size === 0) list.append(empty);
    else empty.remove();
  }

  function objectRow(item: Item, colour: string): HTMLElement {
    const dot = h("span", { class: "dot" });
    dot.style.background = colour;
    const facts = [origin(item), item.mpp !== null && state.scaleText(item.mpp)];
    if (bounds(rings(item.geometry)) === null) facts.unshift("empty");
    const trusted = trust(state.now.info?.model.measured ?? []);
    if (trusted !== null && (item.quality ?? 0) >= ENOUGH) facts.push("✓ good enough");
    const name = h("span", { class: "name", testid: "object-name" }, nameOf(item));
    const title = h("span", { class: "title" }, dot, name);
    const row = h(
      "div",
      { class: "object", role: "option", tabindex: 0, testid: `object-${item.id}`, "data-label": item.label },
      title,
      h("span", { class: "area", testid: "object-area" }, areaText(item.area_um2)),
      h("span", { class: "facts", testid: "object-clicks" }, facts.filter(Boolean).join(" · ")),
      qualityBar(item.quality, trusted),
      h(
        "span",
        { class: "row-buttons" },
        iconButton("zoom", "Zoom to this object (double click)", "object-zoom", () => zoom(item)),
        iconButton("edit", "Rename (F2)", "object-rename", () => rename(item, row, name)),
        inParts(item.geometry) &&
          iconButton("tidy", "Keep only the parts that were clicked (T)", "object-tidy", () => actions.tidy(item.id)),
        iconButton("delete", "Delete this object (Del)", "object-delete", () => actions.delete(item.id)),
      ),
    );
    row.addEventListener("click", (event) => {
      if ((event.target as Element).closest("button, input") === null) actions.select(item.id);
    });
    row.addEventListener("dblclick", (event) => {
      if ((event.target as Element).closest("button, input") === null) zoom(item);
    });
    row.addEventListener("keydown", (event) => {
      if (event.target !== row) return;
      if (event.key === "F2") rename(item, row, name);
      else if (event.key === "Enter" || event.key === " ") actions.select(item.id);
      else if (event.key === "ArrowDown") (row.nextElementSibling as HTMLElement | null)?.focus();
      else if (event.key === "ArrowUp") (row.previousElementSibling as HTMLElement | null)?.focus();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    return row;
  }

  function zoom(item: Item): void {
    actions.select(item.id);
    const box = bounds(rings(item.geometry));
    if (box) stage.show(box);
  }

  function rename(item: Item, row: HTMLElement, name: HTMLElement): void {
    const field = h("input", {
      class: "rename",
      value: item.name,
      maxlength: 200,
      placeholder: nameOf({ ...item, name: "" }),
      "aria-label": "Name",
      testid: "object-name-input",
    });
    let open = true;
    const close = (keep: boolean) => {
      if (!open) return;
      open = false;
      renamed = null;
      if (keep) actions.name(item.id, field.value.trim());
      field.replaceWith(name);
      show(); // what happened meanwhile
    };
    field.addEventListener("blur", () => close(true));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") close(event.key === "Enter");
      event.stopPropagation();
    });
    if (!row.contains(name)) return;
    name.replaceWith(field);
    renamed = row;
    field.focus();
    field.select();
  }

  state.watch(["objects", "current", "classes"], show);
  const head = h("h2", {}, "Objects", count);
  return h("section", { class: "objects", testid: "objects-panel" }, head, list);
}

function nameOf(item: Item): string {
  return item.name || `${item.label || "Unclassified"} ${item.id}`;
}

/** What it was made by. */
function origin({ clicks, box, mpp }: Item): string {
  const count = clicks.length === 1 ? "1 click" : `${clicks.length} clicks`;
  const marks = [box && "box", clicks.length > 0 && count].filter(Boolean).join(", ");
  return marks || (mpp === null ? "imported" : "painted");
}

/** The model's own estimate of how good the mask is. `trusted`: how often it is right, if it may say stop. */
function qualityBar(quality: number | null, trusted: number | null): HTMLElement {
  if (quality === null) return h("span", { class: "quality none" });
  const share = Math.max(0, Math.min(1, quality));
  const bar = h("i", { class: share >= 0.85 ? "good" : share >= 0.7 ? "fair" : "poor" });
  bar.style.width = `${share * 100}%`;
  let text = `The model's own estimate of its mask: ${share.toFixed(2)}`;
  if (trusted !== null && share >= ENOUGH)
    text += `. Good enough: of the patches on which it said ${ENOUGH.toFixed(2)} when it was measured, ${Math.floor(100 * trusted)} % had an IoU of 0.85 or more`;
  return h("span", { class: "quality", title: text, role: "img", "aria-label": text }, bar);
}
