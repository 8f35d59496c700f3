// Puts the parts together.

import { Actions, uuid } from "./actions";
import { Api, Refusal } from "./api";
import { commands, type Command } from "./commands";
import { h } from "./dom";
import { Heartbeat } from "./heartbeat";
import { identity } from "./identity";
import { listen } from "./keyboard";
import { Overlay } from "./overlay";
import { cardDialog } from "./panels/card";
import { classesPanel } from "./panels/classes";
import { displayPanel } from "./panels/display";
import { exchange, reason } from "./panels/exchange";
import { header } from "./panels/header";
import { helpDialog } from "./panels/help";
import { hud } from "./panels/hud";
import { objectsPanel } from "./panels/objects";
import { rail } from "./panels/rail";
import { slidesPanel } from "./panels/slides";
import { status } from "./panels/status";
import { Toasts } from "./panels/toasts";
import { Pointer } from "./pointer";
import { Preview } from "./preview";
import { remember, restored } from "./settings";
import { Stage } from "./stage";
import { State } from "./state";
import "./style.css";

const local = storage(() => localStorage);
const session = storage(() => sessionStorage);
const state = new State(restored(local));
const api = new Api(await identity(local, session, navigator.locks, uuid));
const toasts = new Toasts();
const actions = new Actions(state, api, local, {
  trouble: (sentence) => toasts.show("trouble", sentence),
  hint: (sentence) => toasts.show("hint", sentence),
  look: (part) => stage.show(part),
  sent: (entry) => preview.click(entry),
  answered: (entry, change, object) => preview.answered(entry, change, object),
});

const element = h("div", { class: "stage", testid: "stage", role: "application", "aria-label": "Slide" });
const minimap = h("div", { class: "minimap", testid: "minimap", title: "The whole slide", "aria-hidden": "true" });
const main = h("main", {}, element, minimap);
const app = document.getElementById("app")!;
app.append(main);
const stage = new Stage(element, minimap, state, api);
const waiting = () => actions.outbox.of(state.now.slide?.id ?? "");
const preview = new Preview(state, waiting, (sentence) => toasts.show("hint", sentence));
const overlay = new Overlay(stage, state, waiting);
const pointer = new Pointer(stage, overlay, state, actions, (sentence) => toasts.show("hint", sentence));
const help = helpDialog(() => list);
const card = cardDialog(state);
const list: Command[] = commands(state, actions, stage, {
  help: () => help.open(),
  slides: () => document.body.classList.toggle("slides-toggled"),
});
const find = (name: string) => list.find((each) => each.name === name)!;
const heartbeat = new Heartbeat(state, api, actions);

const shade = h("button", { class: "shade", type: "button", tabindex: -1, "aria-label": "Close the panel" });
shade.addEventListener("click", () => document.body.classList.remove("slides-toggled", "side-toggled"));
const welcome = h(
  "div",
  { class: "welcome", testid: "welcome" },
  h("h1", {}, "Choose a slide"),
  h("p", {}, "Then click inside a structure: the mask follows. Right click where it is wrong."),
);
element.after(overlay.canvas, rail(state, find), hud(state, (mpp) => stage.zoomTo(mpp), (sentence) => toasts.show("hint", sentence)));
main.append(welcome, h("div", { class: "drop-hint" }, "Drop to import annotations"), toasts.element);
app.prepend(
  header(state, find, {
    status: status(state, actions),
    exchange: exchange(state, actions, api, toasts),
    card: () => card.open(),
    toggleSide: () => document.body.classList.toggle("side-toggled"),
  }),
  h("aside", { class: "left" }, slidesPanel(state, api, go)),
);
app.append(
  h("aside", { class: "right" }, classesPanel(state, actions, () => list), objectsPanel(state, actions, stage), displayPanel(state)),
  shade,
);
listen(list, state, actions, pointer);
addEventListener("keydown", (event) => event.key === "Tab" && document.body.classList.add("keys"));
addEventListener("pointerdown", () => document.body.classList.remove("keys"));
app.addEventListener("click", (event) => {
  // a button that was clicked shall not take the keys: Space pans, Enter finishes the object
  const { activeElement } = document;
  if (event.detail > 0 && activeElement instanceof HTMLButtonElement) activeElement.blur();
});
remember(state, local);
state.watch(["user"], ({ user }) => {
  api.user = user;
});
state.watch(["theme"], ({ theme }) => {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
});
state.watch(["slide"], ({ slide }) => {
  welcome.hidden = slide !== null;
  minimap.hidden = slide === null;
});
state.watch(["view", "slide"], ({ view, slide }) => {
  const whole = view && slide && view.x0 <= 0 && view.y0 <= 0 && view.x1 >= slide.width && view.y1 >= slide.height;
  minimap.classList.toggle("needless", !!whole);
});
state.watch(["tool", "positive"], ({ tool, positive }) => {
  element.dataset["tool"] = tool;
  element.dataset["sign"] = positive ? "positive" : "negative";
});
addEventListener("hashchange", () => void open(chosen()));
void begin();

async function begin(): Promise<void> {
  await heartbeat.begin();
  const { slides } = state.now;
  const usable = slides.filter((each) => each.problem === null);
  const id = chosen() ?? (usable.length === 1 ? usable[0]!.id : null);
  if (id) await open(id);
  else showSlides();
}

/** The list of slides is always there on wide screens, unless it was hidden. */
function showSlides(): void {
  document.body.classList.toggle("slides-toggled", matchMedia("(max-width: 1180px)").matches);
}

async function open(id: string | null): Promise<void> {
  document.body.classList.remove("slides-toggled");
  if (id === null || id === state.now.slide?.id) return;
  pointer.cancel();
  try {
    const slide = await api.slide(id);
    if ((chosen() ?? id) !== id) return; // another one was chosen meanwhile
    if (slide.problem) throw new Refusal(422, slide.problem);
    state.open(slide);
    stage.open(slide);
    for (const note of slide.notes ?? []) toasts.show("hint", `${slide.name} ${note}`);
    await actions.refresh();
  } catch (error) {
    if ((chosen() ?? id) !== id) return;
    address(state.now.slide?.id ?? null); // choosing it again tries again
    const listed = state.now.slides.some((each) => each.id === id);
    const gone = error instanceof Refusal && (error.status === 404 || (!listed && !error.passes && !error.barred));
    toasts.show("trouble", gone ? "This slide is not served (any more). Choose one." : reason(error));
    if (state.now.slide === null || gone) showSlides();
  }
}

/** Let the address name the slide that is shown, without opening it. */
function address(id: string | null): void {
  const hash = id === null ? location.pathname + location.search : `#slide=${encodeURIComponent(id)}`;
  history.replaceState(null, "", hash);
}

/** Name a slide in the address, which opens it. */
function go(id: string): void {
  location.hash = `slide=${encodeURIComponent(id)}`;
}

/** The slide that the address names. */
function chosen(): string | null {
  return new URLSearchParams(location.hash.slice(1)).get("slide");
}

function storage(get: () => Storage): Storage | null {
  try {
    return get();
  } catch {
    return null; // forbidden in this browser
  }
}

declare global {
  interface Window {
    histoclick: { readonly viewer: Stage["viewer"]; readonly stage: Stage; readonly state: State };
  }
}
/** For tests and the curious: `stage.toScreen(x, y)`, `state.now`. */
window.histoclick = Object.freeze({ viewer: stage.viewer, stage, state });
