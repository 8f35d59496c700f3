// The slides that are served: search, pictures, how many objects each has.

import type { Api, Slide } from "../api";
import { fill, h, icon } from "../dom";
import { lengthText, magnificationText } from "../geometry";
import type { State } from "../state";

export function slidesPanel(state: State, api: Api, open: (id: string) => void): HTMLElement {
  const search = h("input", {
    type: "search",
    placeholder: "Find a slide",
    "aria-label": "Find a slide",
    testid: "slide-search",
  });
  const list = h("div", { class: "slide-list", role: "list", testid: "slide-list" });
  const rows = new Map<string, { slide: Slide; row: HTMLElement }>();

  function show(): void {
    const { slides, slide } = state.now;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = slides.filter((each) => {
      const text = `${each.folder}/${each.name}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const children: Node[] = [];
    let folder: string | null = null;
    const many = new Set(found.map((each) => each.folder)).size > 1;
    for (const each of found) {
      if (many && each.folder !== folder) {
        folder = each.folder;
        children.push(h("h3", { class: "folder", title: folder }, folder || "."));
      }
      const known = rows.get(each.id);
      const row = known && same(known.slide, each) ? known.row : slideRow(each, api, open);
      rows.set(each.id, { slide: each, row });
      row.classList.toggle("chosen", each.id === slide?.id);
      row.querySelector("button")?.setAttribute("aria-current", String(each.id === slide?.id));
      children.push(row);
    }
    if (found.length === 0) {
      const why = slides.length === 0 ? "No slides are served." : "No slide has this name.";
      children.push(h("p", { class: "empty" }, why));
    }
    const shown = [...list.childNodes];
    if (shown.length !== children.length || shown.some((node, i) => node !== children[i])) fill(list, ...children);
  }

  search.addEventListener("input", show);
  state.watch(["slides", "slide"], show);
  const field = h("label", { class: "search" }, icon("search"), search);
  return h("nav", { class: "slides", "aria-label": "Slides", testid: "slides-panel" }, field, list);
}

function same(a: Slide, b: Slide): boolean {
  return a.objects === b.objects && a.problem === b.problem && a.name === b.name;
}

function slideRow(slide: Slide, api: Api, open: (id: string) => void): HTMLElement {
  const picture = slide.problem
    ? h("span", { class: "thumb broken" }, icon("warning"))
    : h("img", { class: "thumb", src: api.thumbnail(slide.id), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(h("span", { class: "thumb" })));
  const count = slide.objects === 1 ? "1 object" : `${slide.objects} objects`;
  const button = h(
    "button",
    {
      type: "button",
      disabled: slide.problem !== null,
      title: slide.problem ?? slide.name,
      testid: `slide-${slide.id}`,
      "data-name": slide.name,
      on: { click: () => open(slide.id) },
    },
    picture,
    h(
      "span",
      { class: "words" },
      h("span", { class: "name" }, slide.name),
      slide.problem
        ? h("span", { class: "problem", testid: "slide-problem" }, slide.problem)
        : h("span", { class: "facts" }, facts(slide)),
      !slide.problem && slide.objects > 0 && h("span", { class: "count" }, count),
    ),
  );
  return h("div", { class: "slide", role: "listitem" }, button);
}

/** Size and magnification of a slide, in few words. */
export function facts(slide: Slide): string {
  if (slide.mpp === null) return `${slide.width} × ${slide.height} px, no scale`;
  const [width, height] = [slide.width * slide.mpp, slide.height * slide.mpp].map((um) =>
    lengthText(um >= 1000 ? Math.round(um / 100) * 100 : Math.round(um)),
  );
  const short = width!.endsWith("mm") && height!.endsWith("mm") ? width!.replace(" mm", "") : width!;
  return `${short} × ${height} · ${magnificationText(slide.mpp)}`;
}
