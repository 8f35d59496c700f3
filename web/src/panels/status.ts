// Saved, working, or offline with what waits.

import type { Actions } from "../actions";
import { fill, h } from "../dom";
import type { State } from "../state";
import { ask } from "./ask";
import { menu } from "./menu";

const PATIENCE = 100; // ms until we say that we are working

export function status(state: State, actions: Actions): HTMLElement {
  const button = h("button", { type: "button", class: "status", testid: "status", "aria-live": "polite" });
  let timer: ReturnType<typeof setTimeout> | undefined;

  function show(phase: "saved" | "working" | "offline", text: string, title: string): void {
    button.dataset["phase"] = phase;
    button.title = title;
    fill(button, h("i", { class: phase === "working" ? "spinner" : "light" }), h("span", {}, text));
  }

  state.watch(["sending", "slide"], ({ sending, slide }) => {
    button.hidden = !slide;
    clearTimeout(timer);
    if (sending.phase === "waiting") {
      const text = sending.unsent > 0 ? `Offline · ${count(sending.unsent)} unsent` : "Offline";
      show("offline", text, sending.reason);
    } else if (sending.phase === "sending") {
      timer = setTimeout(() => show("working", "Working", "The server is working"), PATIENCE);
    } else show("saved", "Saved", "Everything is saved");
  });

  menu(button, "status-menu", (close) => {
    const { sending, seconds, previewed } = state.now;
    const rows: Node[] = [];
    const say = (text: string) => rows.push(h("p", {}, text));
    const choice = (text: string, testid: string, run: () => void) =>
      rows.push(h("button", { type: "button", testid, on: { click: () => (run(), close()) } }, text));
    if (sending.phase === "waiting") {
      say(sending.reason);
      if (sending.unsent > 0) say(`${count(sending.unsent)} waiting in this browser; nothing is lost. They are sent as soon as the server answers.`);
      choice("Try again now", "retry", () => actions.outbox.retry());
    } else say("Every action is saved as soon as the server acknowledges it.");
    if (seconds !== null) say(`The model took ${(seconds * 1000).toFixed(0)} ms for the last click.`);
    if (state.now.here && previewed !== null) say(`This browser took ${previewed.toFixed(0)} ms for its own answer.`);
    if (actions.outbox.elsewhere > 0)
      say(`${count(actions.outbox.elsewhere)} waiting for slides that are not served now.`);
    rows.push(nameField(state));
    if (sending.phase === "waiting" && sending.unsent > 0) {
      rows.push(h("hr", {})); // apart from what is harmless
      choice(`Give up ${count(sending.unsent)} …`, "discard", () => void giveUp());
    }
    return rows;
  });

  async function giveUp(): Promise<void> {
    const lost = count(actions.outbox.sendable);
    const sure = await ask("Give up what waits?", `${lost} in this browser will be lost. Nobody can take that back.`, `Give up ${lost}`);
    if (sure) actions.outbox.discard();
  }
  return button;
}

/** Who is said to have clicked. */
function nameField(state: State): HTMLElement {
  const field = h("input", {
    value: state.now.user,
    maxlength: 100,
    placeholder: state.now.info?.user || "nobody said",
    testid: "user",
  });
  field.addEventListener("change", () => state.set({ user: field.value.trim() }));
  return h("label", { class: "who" }, "Your name in the log", field);
}

function count(unsent: number): string {
  return unsent === 1 ? "1 action" : `${unsent} actions`;
}
