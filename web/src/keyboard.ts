// Keys on the page. Classes have keys of their own, which go before those of the commands.

import type { Actions } from "./actions";
import type { Command } from "./commands";
import type { Pointer } from "./pointer";
import type { State } from "./state";

const SLIDER = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];

export function listen(list: Command[], state: State, actions: Actions, pointer: Pointer): void {
  window.addEventListener("keydown", (event) => {
    if (types(event.target) || document.querySelector("dialog[open], [popover]:popover-open")) return;
    if (event.key === " ") {
      if (event.target instanceof HTMLButtonElement) return;
      pointer.panning = true;
      document.body.classList.add("panning");
      event.preventDefault();
      return;
    }
    if (event.key === "Escape" && pointer.busy) {
      pointer.cancel();
      return;
    }
    const key = spelled(event);
    if (SLIDER.includes(key) && event.target instanceof HTMLInputElement) return;
    const chosen = state.now.classes.find((each) => each.key !== "" && each.key === key);
    if (chosen) actions.label(chosen.name);
    const command = chosen ? null : list.find((each) => each.keys.includes(key));
    if (!chosen && !command) return;
    if (key === "Enter" && event.target instanceof HTMLButtonElement) return;
    command?.run();
    event.preventDefault();
  });
  window.addEventListener("keyup", (event) => {
    if (event.key === " ") still();
  });
  window.addEventListener("blur", still);

  function still(): void {
    pointer.panning = false;
    document.body.classList.remove("panning");
  }
}

/** Such as "N", "Ctrl+Shift+Z", "?", as `commands` names keys. */
function spelled(event: KeyboardEvent): string {
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  const letter = /^[A-Z]$/.test(key);
  const parts = [event.ctrlKey || event.metaKey ? "Ctrl" : "", event.altKey ? "Alt" : ""];
  if (event.shiftKey && (letter || key.length > 1)) parts.push("Shift");
  return [...parts, key].filter((each) => each !== "").join("+");
}

function types(target: EventTarget | null): boolean {
  if (target instanceof HTMLInputElement) return !["range", "checkbox", "radio"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}
