// Short messages that go away, and those that stay until they are read.

import { fill, h, icon } from "../dom";

export type Kind = "done" | "hint" | "trouble";
const STAYS = { done: 4000, hint: 6000, trouble: 12000 }; // ms
const MOST = 3; // at a time
const ICONS = { done: "check", hint: "help", trouble: "warning" } as const;

export class Toasts {
  readonly element = h("div", { class: "toasts", role: "status", "aria-live": "polite", testid: "toasts" });

  /** Show a sentence, with details below it; the same sentence is not shown twice. */
  show(kind: Kind, sentence: string, details: string[] = []): void {
    for (const other of this.element.children) {
      if ((other as HTMLElement).dataset["sentence"] === sentence) other.remove();
    }
    const notes = details.length === 1 ? "1 note" : `${details.length} notes`;
    const list =
      details.length > 0 &&
      h("details", {}, h("summary", {}, notes), h("ul", {}, ...details.map((each) => h("li", {}, each))));
    const close = h("button", { class: "close", type: "button", title: "Dismiss", "aria-label": "Dismiss" });
    fill(close, icon("close"));
    const toast = h(
      "div",
      { class: `toast ${kind}`, testid: `toast-${kind}`, "data-sentence": sentence },
      icon(ICONS[kind]),
      h("div", { class: "words" }, h("p", {}, sentence), list),
      close,
    );
    close.addEventListener("click", () => toast.remove());
    this.element.append(toast);
    if (details.length === 0) setTimeout(() => toast.remove(), STAYS[kind]);
    while (this.element.children.length > MOST) this.element.firstElementChild?.remove();
  }
}
