// What is done to logits, as the server's `models.compliance` does it. No DOM.

import type { Mark } from "./lattice";
import { cropped, resized, type Picture } from "./pixels";
import type { Frame } from "./tensors";

export interface Rules {
  /** clicked pixels get what was said, by bumps of `bump_px` of the model's input */
  comply: boolean;
  bump_px: number;
  /** after a negative click no logit is higher than before */
  lower: boolean;
  /** no logit is larger */
  sure: number | null;
}

const REACH = 3; // standard deviations; a bump ends there
const LEAST = 1; // logit that a clicked pixel gets at least, with the click's sign

/** The answer in the model's input, where `clicks` are. `before`: the last one. */
export function settle(logits: Picture, before: Picture | null, clicks: Mark[], rules: Rules): Picture {
  let { values } = logits;
  if (rules.lower && before && clicks.at(-1)![2] < 0) {
    values = values.map((value, i) => Math.min(value, before.values[i]!));
  }
  let settled = { ...logits, values };
  if (rules.comply) settled = comply(settled, clicks, rules.bump_px);
  const { sure } = rules;
  if (sure === null) return settled;
  return { ...settled, values: settled.values.map((value) => Math.min(Math.max(value, -sure), sure)) };
}

/** The answer on the window, where `clicks` are now. `stride`: of the logits. */
export function show(settled: Picture, frame: Frame, clicks: Mark[], stride: number, rules: Rules): Picture {
  const [rows, columns] = frame.resized;
  const [height, width] = frame.shape;
  const full = resized(settled, settled.width * stride, settled.height * stride);
  const shown = resized(cropped(full, columns, rows), width, height);
  if (!rules.comply) return shown;
  const scale = Math.max(height, width) / Math.max(rows, columns);
  return comply(shown, clicks, Math.max(rules.bump_px * scale, 1));
}

/** Logits in which every clicked pixel says what the click said, by a Gaussian bump of `sigma` px
 * that reaches no click of the other sign; among clicks on one pixel the last one counts. */
export function comply(logits: Picture, clicks: Mark[], sigma: number): Picture {
  const { width, height } = logits;
  const values = logits.values.slice();
  const pixels = new Map<number, number>(); // place -> sign
  for (const [x, y, sign] of clicks) pixels.set(even(y) * width + even(x), sign);
  for (const [place, sign] of pixels) {
    const missing = LEAST - sign * values[place]!;
    if (missing < LEAST) continue; // it agrees
    const [x, y] = [place % width, Math.floor(place / width)];
    let limit = (REACH * sigma) ** 2;
    for (const [other, said] of pixels) {
      const away = (x - (other % width)) ** 2 + (y - Math.floor(other / width)) ** 2;
      if (said !== sign) limit = Math.min(limit, away);
    }
    const reach = Math.sqrt(limit);
    const spread = 2 * Math.max(reach / REACH, 1e-3) ** 2;
    const far = Math.ceil(reach);
    for (let v = Math.max(y - far, 0); v < Math.min(y + far + 1, height); v++) {
      for (let u = Math.max(x - far, 0); u < Math.min(x + far + 1, width); u++) {
        const squared = (u - x) ** 2 + (v - y) ** 2;
        if (squared > 0 && squared >= limit) continue;
        values[v * width + u]! += sign * missing * Math.exp(-squared / spread);
      }
    }
  }
  return { ...logits, values };
}

/** The nearest whole number; of two, the even one, as Python rounds. */
function even(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
