// The model that answers, and what it was measured to do.

import type { Measured } from "../api";
import { h } from "../dom";
import type { State } from "../state";
import { Dialog } from "./dialog";

const TARGETS = [80, 85, 90] as const;

export function cardDialog(state: State): Dialog {
  return new Dialog("Model", "model-card", () => {
    const { info } = state.now;
    if (!info) return [h("p", {}, "The server did not say which model it has.")];
    const { model, version } = info;
    const facts = h("dl", {});
    const fact = (name: string, value: string) => facts.append(h("dt", {}, name), h("dd", {}, value));
    fact("Licence", model.licence || "not said");
    fact("Window", `${model.window_px} × ${model.window_px} px at the working resolution`);
    fact("histoclick", version);
    const warning = "This model is not trained: it only shows how the tool works.";
    return [
      h("p", { class: "model-id" }, model.id),
      h("p", {}, model.summary),
      ...(model.untrained ? [h("p", { class: "warning" }, warning)] : []),
      facts,
      h("h3", {}, "Measured: clicks needed (NoC)"),
      ...(model.measured.length > 0 ? [table(model.measured)] : [h("p", {}, "Nothing was measured yet.")]),
      h("p", { class: "note" }, "Mean number of simulated clicks until the mask reaches an IoU of 80, 85 or 90 %; what never does counts as 20."),
    ];
  });
}

function table(measured: Measured[]): HTMLElement {
  const number = (value: unknown) => (typeof value === "number" ? value.toFixed(2) : "–");
  const rows = measured.map((each) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, each.dataset),
      h("td", {}, typeof each.patches === "number" ? String(each.patches) : "–"),
      ...TARGETS.map((target) => h("td", {}, number(each[`noc${target}`]))),
    ),
  );
  const count = h("th", { scope: "col" }, "Patches");
  const head = h("tr", {}, h("th", { scope: "col" }, "Data"), count, ...TARGETS.map((each) => h("th", { scope: "col" }, `NoC@${each}`)));
  return h("table", { testid: "measured" }, h("thead", {}, head), h("tbody", {}, ...rows));
}
