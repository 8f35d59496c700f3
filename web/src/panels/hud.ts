// What one must know about the view: scale bar, magnification, and at which scale a click works.

import { fill, h } from "../dom";
import { lengthText, magnificationText, mppText, nearest, roundLength } from "../geometry";
import type { State } from "../state";
import { menu } from "./menu";

const LONGEST = 150; // screen px of the scale bar
const ZOOMS = [0.25, 0.5, 1, 2, 4, 8, 16];

export function hud(state: State, zoomTo: (mpp: number) => void, hint: (sentence: string) => void): HTMLElement {
  const bar = h("span", { class: "bar" });
  const length = h("span", { class: "length", testid: "scale-length" });
  const scale = h("div", { class: "scale-bar", testid: "scale-bar" }, bar, length);
  const zoom = h("button", { type: "button", class: "chip", title: "Magnification of the view; choose another", testid: "magnification" });
  const working = h("button", { type: "button", class: "chip working", testid: "working" });
  const ready = h("span", { class: "ready", testid: "ready" });
  const place = h("span", { class: "place", testid: "cursor" });

  menu(zoom, "zoom-menu", (close) =>
    ZOOMS.filter((mpp) => mpp > (state.now.slide?.mpp ?? 1) / 2.5).map((mpp) =>
      h(
        "button",
        { type: "button", on: { click: () => (zoomTo(mpp), close()) } },
        h("span", {}, magnificationText(mpp)),
        h("small", {}, `${mppText(mpp)} µm/px`),
      ),
    ),
  );
  menu(working, "working-menu", (close) => [
    h("p", {}, "New objects are worked on at"),
    ...(["auto", ...state.choices] as const).map((each) => {
      const text = each === "auto" ? "Automatic, from the zoom" : state.scaleText(each);
      const small = each === "auto" || state.now.slide?.mpp == null ? "" : magnificationText(each);
      const choose = () => (work(each), close());
      const pressed = String(state.now.working === each);
      const props = { type: "button", "aria-pressed": pressed, testid: `working-${each}` };
      return h("button", { ...props, on: { click: choose } }, h("span", {}, text), small && h("small", {}, small));
    }),
    h("p", { class: "note" }, "The model sees one window of the slide at this scale. Coarser sees more, finer sees better. An object keeps its own."),
  ]);

  function work(mpp: number | "auto"): void {
    state.set({ working: mpp });
    const own = state.item?.mpp;
    if (own == null || own === mpp) return;
    const others = mpp === "auto" ? "as the zoom says" : `at ${state.scaleText(mpp)}`;
    hint(`This object stays at ${state.scaleText(own)}; new ones are worked on ${others}.`);
  }

  state.watch(["view", "slide"], ({ view, slide }) => {
    scale.hidden = zoom.hidden = !view || slide?.mpp == null;
    if (!view || slide?.mpp == null) return;
    const um = roundLength(LONGEST * view.mpp);
    bar.style.width = `${um / view.mpp}px`;
    length.textContent = lengthText(um);
    fill(zoom, h("b", {}, magnificationText(view.mpp)), `${mppText(view.mpp)} µm/px`);
  });
  state.watch(["view", "slide", "working", "current", "objects"], (now) => {
    const mpp = state.mpp;
    working.hidden = mpp === null;
    if (mpp === null) return;
    const own = state.item?.mpp != null;
    const auto = !own && now.working === "auto";
    const text = own ? "this object" : auto ? "auto" : "fixed";
    working.classList.toggle("fixed", !own && !auto);
    working.title = own
      ? `Clicks on this object work at its own ${state.scaleText(mpp)}`
      : "The scale at which a click works; choose another";
    fill(working, "Works at", h("b", {}, state.scaleText(mpp)), h("small", {}, text));
    const from = now.view ? nearest(state.choices, now.view.mpp) : mpp;
    working.classList.toggle("far", own && Math.abs(Math.log2(from / mpp)) > 2);
  });
  state.watch(["ready", "slide"], (now) => {
    ready.hidden = now.ready === null || !now.slide;
    ready.classList.toggle("yes", now.ready === true);
    ready.title = now.ready ? "The view is encoded: clicks answer at once" : "The view is being encoded: a click now takes longer";
    ready.textContent = now.ready ? "Ready" : "Encoding view";
  });
  state.watch(["cursor", "slide"], ({ cursor, slide }) => {
    place.textContent = cursor && slide ? `${Math.floor(cursor.x)}, ${Math.floor(cursor.y)}` : "";
  });
  return h("div", { class: "hud" }, scale, h("div", { class: "chips" }, zoom, working, ready, place));
}
