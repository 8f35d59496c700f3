// What a user likes, kept in this browser.

import { START, type State, type Values } from "./state";

const KEPT = ["opacity", "fill", "theme", "working", "radius", "user", "here"] as const;
const NAME = "histoclick.settings";

export function restored(shelf: Pick<Storage, "getItem"> | null): Partial<Values> {
  let kept: Record<string, unknown>;
  try {
    kept = JSON.parse(shelf?.getItem(NAME) ?? "{}") as Record<string, unknown>;
  } catch {
    return {};
  }
  const fits = KEPT.filter(
    (key) => typeof kept[key] === typeof START[key] || (key === "working" && typeof kept[key] === "number"),
  );
  return Object.fromEntries(fits.map((key) => [key, kept[key]])) as Partial<Values>;
}

export function remember(state: State, shelf: Pick<Storage, "setItem"> | null): void {
  state.watch(KEPT, (now) => {
    try {
      shelf?.setItem(NAME, JSON.stringify(Object.fromEntries(KEPT.map((key) => [key, now[key]]))));
    } catch {
      // full or forbidden: then only this page knows
    }
  });
}
