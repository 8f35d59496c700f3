import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Action, Info, Target } from "../src/api";
import type { Answer, Ask } from "../src/decoding/worker";
import type { Entry } from "../src/outbox";
import { Preview } from "../src/preview";
import { State } from "../src/state";
import { change, item } from "./made";

const SLIDE = {
  id: "a", name: "a.svs", folder: "", width: 4000, height: 4000, mpp: 0.5, objects: 0, problem: null,
  bounds: [0, 0, 4000, 4000] as [number, number, number, number], unit: [0.5, 0.5] as [number, number],
  tile_size: 510, overlap: 1, max_level: 12, background: null,
};

function info(decoder: string | null): Info {
  const model = { id: "m", summary: "", licence: "", measured: [], untrained: false, window_px: 448, decoder };
  return { version: "", model, user: "", formats: [] };
}

/** Stands in for the thread that runs the model. */
class Thread {
  static last: Thread | null = null;
  readonly asks: Ask[] = [];
  terminate = vi.fn();
  private hear: ((event: { data: Answer }) => void) | null = null;

  constructor() {
    Thread.last = this;
  }
  addEventListener(kind: string, hear: (event: { data: Answer }) => void): void {
    if (kind === "message") this.hear = hear;
  }
  postMessage(ask: Ask): void {
    this.asks.push(ask);
  }
  /** A square of `side` px of the window. */
  answer(id: string, side: number, name = "m@1"): void {
    const rings: [number, number][][] = [[[0, 0], [side, 0], [side, side], [0, side]]];
    this.hear!({ data: { id, name, rings, pixels: side * side, ms: 1 } });
  }
  fail(stale: boolean): void {
    this.hear!({ data: { problem: "it is broken", stale } });
  }
}

let state: State;
let waiting: Entry[];
let preview: Preview;
const hint = vi.fn();

beforeEach(() => {
  Thread.last = null;
  vi.stubGlobal("Worker", Thread);
  vi.stubGlobal("document", { baseURI: "http://localhost/" });
  hint.mockClear();
  state = new State({ here: true, info: info("ab"), slide: SLIDE });
  waiting = [];
  preview = new Preview(state, () => waiting, hint);
});
afterEach(() => vi.unstubAllGlobals());

function click(id: string, object: Target, x: number, y: number): Ask | undefined {
  const action: Action = { kind: "click", object, x, y, positive: true, mpp: 1, label: "Tumor" };
  const entry = { id, slide: "a", client: "tab", action };
  waiting.push(entry);
  preview.click(entry);
  return Thread.last?.asks.find((ask) => ask.kind === "click" && ask.id === id);
}

/** The server's answer: a square of `side` working px, each 2 px of level 0. */
function answered(id: string, version: number, side: number, model = "m@1"): void {
  const entry = waiting.find((each) => each.id === id)!;
  waiting = waiting.filter((each) => each !== entry);
  const [a, b] = [800, 800 + 2 * side];
  const geometry = { type: "Polygon" as const, coordinates: [[[a, a], [b, a], [b, b], [a, b]] as [number, number][]] };
  const done = change(version, { objects: [item(1, version, { geometry })], model });
  state.apply(done, version - 1);
  preview.answered(entry, done, 1);
  state.set({ sending: { ...state.now.sending } });
}

describe("a click", () => {
  it("is asked for in the window where the model looks, and shown until the answer comes", () => {
    const ask = click("one", null, 1000, 1010);
    expect(ask).toMatchObject({ id: "one", after: null, clicks: [[275.5, 280.5, 1]] });
    expect(ask).toMatchObject({ place: { slide: "a", mpp: 1, x: 224, y: 224 } });
    Thread.last!.answer("one", 10);
    const [shown] = state.now.previews;
    expect(shown!.item.geometry!.coordinates).toEqual([[[448, 448], [468, 448], [468, 468], [448, 468]]]);
    expect(shown!.object).toBe("one");
    answered("one", 1, 10);
    expect(state.now.previews).toEqual([]);
  });

  it("goes on from the last one, answered or not", () => {
    click("one", null, 1000, 1000);
    expect(click("two", "one", 1100, 1000)).toMatchObject({ after: "one", clicks: [[275.5, 275.5, 1], [325.5, 275.5, 1]] });
    Thread.last!.answer("one", 10);
    Thread.last!.answer("two", 12);
    expect(state.now.previews.length).toBe(1);
    waiting[1] = { ...waiting[1]!, action: { ...waiting[1]!.action, object: 1 } as Action };
    answered("one", 1, 10);
    expect(state.now.previews.map((each) => [each.object, each.item.id])).toEqual([[1, 1]]);
    answered("two", 2, 12);
    expect(click("three", 1, 1000, 1100)).toMatchObject({ after: "two" });
  });

  it("is left to the server when anything else happened to the object", () => {
    click("one", null, 1000, 1000);
    Thread.last!.answer("one", 10);
    answered("one", 1, 10);
    state.apply(change(2, { objects: [{ ...state.now.objects.get(1)!, version: 2 }] }), 1);
    expect(click("two", 1, 1000, 1000)).toBeUndefined();
    expect(click("three", 7, 1000, 1000)).toBeUndefined(); // of an object that others made
  });

  it("is left to the server in another window, and while something else waits", () => {
    click("one", null, 1000, 1000);
    Thread.last!.answer("one", 10);
    answered("one", 1, 10);
    waiting.push({ id: "undo", slide: "a", client: "tab", action: { kind: "undo" } });
    expect(click("two", 1, 1000, 1000)).toBeUndefined();
    waiting = [];
    click("other", null, 1000, 1000);
    Thread.last!.answer("other", 10);
    answered("other", 2, 10);
    expect(click("far", 1, 3000, 3000)).toBeUndefined();
  });

  it("is left to the server after a preview that was not its answer", () => {
    click("one", null, 1000, 1000);
    Thread.last!.answer("one", 10);
    answered("one", 1, 11);
    expect(click("two", 1, 1000, 1000)).toBeUndefined();
  });
});

describe("another model", () => {
  it("ends all that came from the one before", () => {
    click("one", null, 1000, 1000);
    const thread = Thread.last!;
    thread.answer("one", 10);
    answered("one", 1, 10, "m@2");
    expect(thread.terminate).toHaveBeenCalled();
    click("two", null, 1000, 1000);
    Thread.last!.answer("two", 10, "m@1"); // late, or from a cache
    expect(state.now.previews).toEqual([]);
    click("three", null, 1000, 1000);
    Thread.last!.answer("three", 10, "m@2");
    expect(state.now.previews.length).toBe(1);
    state.set({ info: info("ab") }); // the same as before
    expect(state.now.previews.length).toBe(1);
    state.set({ info: info("cd") });
    expect(state.now.previews).toEqual([]);
    state.set({ info: info(null) });
    expect(click("four", null, 1000, 1000)).toBeUndefined();
  });
});

describe("what fails", () => {
  it("is told after three times, and then not tried again until it is switched on again", () => {
    for (const id of ["one", "two", "three"]) {
      expect(click(id, null, 1000, 1000)).toBeDefined();
      Thread.last!.fail(false);
    }
    expect(hint).toHaveBeenCalledTimes(1);
    expect(click("four", null, 1000, 1000)).toBeUndefined();
    state.set({ here: false });
    expect(click("five", null, 1000, 1000)).toBeUndefined();
    state.set({ here: true });
    expect(click("six", null, 1000, 1000)).toBeDefined();
  });

  it("is no failure when the server's model is another one now", () => {
    for (let i = 0; i < 5; i++) {
      expect(click(`${i}`, null, 1000, 1000)).toBeDefined();
      Thread.last!.fail(true);
    }
    expect(hint).not.toHaveBeenCalled();
  });
});
