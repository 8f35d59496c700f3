// A question before something is lost.

import { h } from "../dom";
import { Dialog } from "./dialog";

/**
 * Ask whether to go on. `consequence`: what happens then; `yes`: what the button says that does it;
 * `choice`: what else there is to choose.
 */
export function ask(question: string, consequence: string, yes: string, choice?: Node): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = new Dialog(question, "ask", (close) => {
      const answer = (sure: boolean) => () => {
        resolve(sure);
        close();
      };
      return [
        h("p", {}, consequence),
        ...(choice ? [choice] : []),
        h(
          "footer",
          { class: "answers" },
          h("button", { type: "button", class: "quiet", testid: "ask-no", on: { click: answer(false) } }, "Cancel"),
          h("button", { type: "button", class: "primary", testid: "ask-yes", on: { click: answer(true) } }, yes),
        ),
      ];
    });
    dialog.element.addEventListener("close", () => {
      resolve(false);
      dialog.element.remove();
    });
    dialog.open();
  });
}
