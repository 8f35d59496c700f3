// A window over the page, with a heading and a button to close it.

import { fill, h, icon } from "../dom";

export class Dialog {
  readonly element: HTMLDialogElement;
  private readonly body = h("div", { class: "dialog-body" });

  /** `content` is made anew each time the dialog opens. */
  constructor(
    title: string,
    testid: string,
    private readonly content: (close: () => void) => Node[],
  ) {
    const close = h("button", { class: "icon-button", type: "button", title: "Close (Esc)", "aria-label": "Close" });
    fill(close, icon("close"));
    close.addEventListener("click", () => this.close());
    const head = h("header", {}, h("h2", {}, title), close);
    this.element = h("dialog", { class: "dialog", "aria-label": title, testid }, head, this.body);
    this.element.addEventListener("click", (event) => {
      if (event.target === this.element) this.close(); // beside it
    });
    document.body.append(this.element);
  }

  open(): void {
    fill(this.body, ...this.content(() => this.close()));
    if (!this.element.open) this.element.showModal();
  }

  close(): void {
    this.element.close();
  }
}
