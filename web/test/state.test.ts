import { describe, expect, it, vi } from "vitest";
import type { OpenSlide } from "../src/api";
import { State } from "../src/state";
import { change, item } from "./made";

const SLIDE: OpenSlide = {
  id: "a", name: "a.svs", folder: "", width: 40000, height: 20000, mpp: 0.25, objects: 0,
  problem: null, bounds: [0, 0, 40000, 20000], unit: [0.25, 0.25], tile_size: 510, overlap: 1, max_level: 16, background: null,
};
const TUMOR = { name: "Tumor", colour: [200, 0, 0] as [number, number, number], key: "1" };

describe("watching", () => {
  it("tells at once and then only of what changed", () => {
    const state = new State();
    const tell = vi.fn();
    state.watch(["tool"], tell);
    state.set({ opacity: 0.5 });
    state.set({ tool: "click" });
    expect(tell).toHaveBeenCalledTimes(1);
    state.set({ tool: "box", opacity: 0.6 });
    expect(tell).toHaveBeenCalledTimes(2);
    expect(tell.mock.lastCall?.[0].tool).toBe("box");
  });
});

describe("what the server says", () => {
  it("is merged: changed objects replace, removed ones go", () => {
    const state = new State();
    state.apply(change(2, { objects: [item(1, 1), item(2, 2)], classes: [TUMOR], can_undo: true }), 0);
    state.apply(change(3, { objects: [item(2, 3, { name: "x" })], removed: [1] }), 2);
    expect([...state.now.objects.keys()]).toEqual([2]);
    expect(state.now.objects.get(2)?.name).toBe("x");
    expect(state.now.seq).toBe(3);
    expect(state.now.classes).toEqual([TUMOR]);
    expect(state.now.label).toBe("Tumor");
    expect(state.now.canUndo).toBe(false);
  });

  it("does not go back when a late reply tells an older story", () => {
    const state = new State();
    state.apply(change(5, { objects: [item(1, 5, { name: "new" })], can_undo: true }), 0);
    state.apply(change(4, { objects: [item(1, 3, { name: "old" })], removed: [] }), 0);
    state.apply(change(4, { removed: [1] }), 0);
    expect(state.now.objects.get(1)?.name).toBe("new");
    expect(state.now.seq).toBe(5);
    expect(state.now.canUndo).toBe(true);
  });

  it("is asked for again from the beginning when the server has another history", () => {
    const state = new State();
    state.apply(change(9, { objects: [item(1, 9)] }), 0);
    state.set({ current: 1 });
    expect(state.apply(change(2), 9)).toBe(false);
    expect(state.now).toMatchObject({ seq: 0, current: null });
    expect(state.now.objects.size).toBe(0);
  });

  it("ends work on an object that is gone", () => {
    const state = new State();
    state.apply(change(1, { objects: [item(1, 1)] }), 0);
    state.set({ current: 1 });
    state.apply(change(2, { removed: [1] }), 1);
    expect(state.now.current).toBeNull();
  });
});

describe("the working resolution", () => {
  it("follows the zoom, within what the slide has", () => {
    const state = new State({ slide: SLIDE });
    const at = (mpp: number) => {
      state.set({ view: { mpp, x0: 0, y0: 0, x1: 1, y1: 1 } });
      return state.mpp;
    };
    expect([0.01, 0.3, 0.8, 1.5, 3, 100].map(at)).toEqual([0.25, 0.25, 1, 2, 4, 8]);
  });

  it("is the object's own, else the one that was fixed", () => {
    const state = new State({ slide: SLIDE, working: 4 });
    expect(state.mpp).toBe(4);
    state.apply(change(1, { objects: [item(1, 1, { mpp: 0.5 }), item(2, 1, { mpp: null })] }), 0);
    state.set({ current: 1 });
    expect(state.mpp).toBe(0.5);
    state.set({ current: 2 });
    expect(state.mpp).toBe(4);
  });

  it("counts px where the slide has no scale", () => {
    const state = new State({ slide: { ...SLIDE, mpp: null } });
    expect(state.mpp).toBe(1);
    expect(state.scaleText(4)).toBe("1 : 4");
  });
});

it("another slide begins with nothing", () => {
  const state = new State();
  state.apply(change(1, { objects: [item(1, 1)], classes: [TUMOR] }), 0);
  state.set({ current: 1, opacity: 0.9 });
  state.open(SLIDE);
  expect(state.now).toMatchObject({ seq: 0, current: null, opacity: 0.9, slide: SLIDE });
  expect(state.now.objects.size).toBe(0);
});

it("classes that only objects have can be chosen too", () => {
  const state = new State();
  state.apply(change(1, { objects: [item(1, 1, { label: "lesion" }), item(2, 1, { label: "" }), item(3, 1)], classes: [TUMOR] }), 0);
  expect(state.labels.map((each) => each.name)).toEqual(["Tumor", "lesion"]);
  state.set({ label: "lesion" });
  state.apply(change(2), 1);
  expect(state.now.label).toBe("lesion");
  state.apply(change(3, { removed: [1] }), 2);
  expect(state.now.label).toBe("Tumor");
});

it("a new object is worked on as was chosen, whatever is selected", () => {
  const state = new State({ slide: SLIDE, working: 4 });
  state.apply(change(1, { objects: [item(1, 1, { mpp: 0.5 })] }), 0);
  state.set({ current: 1 });
  expect([state.mpp, state.fresh]).toEqual([0.5, 4]);
});
