// Whether a model knows its masks well enough to say: this one will do.

import type { Measured } from "./api";

export const ENOUGH = 0.9; // estimated IoU at which nobody need click on
const PATCHES = 30; // on which it must have said so when it was measured
const RIGHT = 0.9; // share of them that had an IoU of 0.85 by then, at least

/** That share; null for a model that was not measured enough, or was right too rarely. */
export function trust(measured: Measured[]): number | null {
  const all = (key: "sure" | "sure_right") => measured.reduce((sum, each) => sum + (each[key] ?? 0), 0);
  const sure = all("sure");
  const right = all("sure_right");
  return sure >= PATCHES && right / sure >= RIGHT ? right / sure : null;
}
