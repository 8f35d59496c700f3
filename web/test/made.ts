// Values for tests.

import type { Change, Item } from "../src/api";

export function item(id: number, version: number, more: Partial<Item> = {}): Item {
  return {
    id, version, label: "Tumor", name: "", mpp: 1, clicks: [], box: null, geometry: null,
    area_um2: null, quality: null, window: null, ...more,
  };
}

export function change(seq: number, more: Partial<Change> = {}): Change {
  return { seq, classes: [], objects: [], removed: [], can_undo: false, can_redo: false, ...more };
}
