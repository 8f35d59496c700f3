import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Refusal, type Action, type Change, type Target } from "../src/api";
import { Outbox, type Entry, type Shelf } from "../src/outbox";
import { change, item } from "./made";

class Memory implements Shelf {
  readonly all = new Map<string, string>();
  get length(): number {
    return this.all.size;
  }
  key = (index: number) => [...this.all.keys()][index] ?? null;
  getItem = (key: string) => this.all.get(key) ?? null;
  setItem = (key: string, value: string) => void this.all.set(key, value);
  removeItem = (key: string) => void this.all.delete(key);
}

function click(object: Target, x = 0, positive = true): Action {
  return { kind: "click", object, x, y: 0, positive, mpp: 1, label: "" };
}

/** A server that answers when it is told to. */
function desk(shelf: Shelf | null = new Memory()) {
  const asked: { entry: Entry; yes(change: Change): void; no(error: Refusal): void }[] = [];
  const refused: string[] = [];
  const done: string[] = [];
  const send = (entry: Entry) =>
    new Promise<Change>((yes, no) => asked.push({ entry, yes, no }));
  const outbox = new Outbox(send, shelf, {
    done: (entry) => done.push(entry.id),
    refused: (entry, reason) => refused.push(`${entry.id}: ${reason}`),
    changed: () => {},
  });
  outbox.serve(["a"]);
  const add = (id: string, action: Action, slide = "a") => outbox.add({ id, slide, client: "c", action });
  const settle = () => vi.advanceTimersByTimeAsync(0);
  return { asked, refused, done, outbox, add, settle };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("order", () => {
  it("sends the next action only when the last one was acknowledged", async () => {
    const { asked, add, settle, done, outbox } = desk();
    add("1", click(7));
    add("2", click(7));
    await settle();
    expect(asked.map(({ entry }) => entry.id)).toEqual(["1"]);
    asked[0]!.yes(change(1));
    await settle();
    expect(asked.map(({ entry }) => entry.id)).toEqual(["1", "2"]);
    asked[1]!.yes(change(2));
    await settle();
    expect(done).toEqual(["1", "2"]);
    expect([outbox.phase, outbox.sendable]).toEqual(["idle", 0]);
  });

  it("lets later actions say the number of the object that an earlier one made", async () => {
    const { asked, add, settle } = desk();
    add("1", click(null, 5));
    add("2", click("1", 6));
    asked[0]!.yes(change(9, { objects: [item(3, 9, { clicks: [{ x: 5, y: 0, positive: true }] }), item(4, 8)] }));
    await settle();
    expect(asked[1]!.entry.action).toMatchObject({ object: 3, x: 6 });
  });

  it("lets the next click begin the object when the first one was refused", async () => {
    const { asked, add, settle, refused } = desk();
    add("1", click(null));
    add("2", click("1", 1, false));
    add("3", click("1", 2));
    add("4", click("1", 3));
    asked[0]!.no(new Refusal(400, "no"));
    await settle();
    expect(refused).toEqual(["1: no"]);
    asked[1]!.no(new Refusal(422, "not alone"));
    await settle();
    expect(asked[2]!.entry.action).toMatchObject({ object: null, x: 2 });
    asked[2]!.yes(change(1, { objects: [item(5, 1, { clicks: [{ x: 2, y: 0, positive: true }] })] }));
    await settle();
    expect(asked[3]!.entry.action).toMatchObject({ object: 5, x: 3 });
  });
});

describe("when the server cannot be reached", () => {
  it("asks again with the same id, later and later", async () => {
    const { asked, add, settle, outbox } = desk();
    add("1", click(7));
    asked[0]!.no(new Refusal(0, "The server cannot be reached."));
    await settle();
    expect([outbox.phase, outbox.reason]).toEqual(["waiting", "The server cannot be reached."]);
    await vi.advanceTimersByTimeAsync(500);
    expect(asked).toHaveLength(2);
    asked[1]!.no(new Refusal(503, "busy"));
    await vi.advanceTimersByTimeAsync(900);
    expect(asked).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(100);
    expect(asked.map(({ entry }) => entry.id)).toEqual(["1", "1", "1"]);
    asked[2]!.yes(change(1));
    await settle();
    expect([outbox.phase, outbox.sendable, outbox.reason]).toEqual(["idle", 0, ""]);
  });

  it("keeps what waits over a crash of the page, with numbers that were already known", async () => {
    const shelf = new Memory();
    const before = desk(shelf);
    before.add("1", click(null, 5));
    before.add("2", click("1", 6));
    before.add("3", click("1", 7));
    before.asked[0]!.yes(change(1, { objects: [item(2, 1, { clicks: [{ x: 5, y: 0, positive: true }] })] }));
    await before.settle();
    const after = desk(shelf);
    await after.settle();
    expect(after.asked[0]!.entry).toMatchObject({ id: "2", client: "c", action: { object: 2, x: 6 } });
    after.asked[0]!.yes(change(2));
    await after.settle();
    after.asked[1]!.yes(change(3));
    await after.settle();
    expect(shelf.length).toBe(0);
  });

  it("gives up only when it is told to", async () => {
    const shelf = new Memory();
    const { asked, add, settle, outbox } = desk(shelf);
    add("1", click(7));
    add("2", click(7));
    asked[0]!.no(new Refusal(500, "a fault"));
    await settle();
    expect(outbox.sendable).toBe(2);
    outbox.discard();
    expect([outbox.sendable, shelf.length, outbox.phase]).toEqual([0, 0, "idle"]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toHaveLength(1);
  });
});

it("actions on slides that are not served wait for a server that has them", async () => {
  const { asked, add, settle, outbox } = desk();
  add("1", click(7), "b");
  add("2", click(7), "a");
  await settle();
  expect(asked.map(({ entry }) => entry.id)).toEqual(["2"]);
  expect([outbox.sendable, outbox.elsewhere]).toEqual([1, 1]);
  asked[0]!.yes(change(1));
  await settle();
  outbox.serve(["a", "b"]);
  await settle();
  expect(asked.map(({ entry }) => entry.id)).toEqual(["2", "1"]);
});

it("works without storage, and with rubbish in it", async () => {
  const shelf = new Memory();
  shelf.setItem("histoclick.unsent.1", "{");
  shelf.setItem("somebody else's", "{");
  const kept = desk(shelf);
  expect([...shelf.all.keys()]).toEqual(["somebody else's"]);
  expect(kept.outbox.sendable).toBe(0);
  const full = desk({ ...new Memory(), length: 0, key: () => null, getItem: () => null, removeItem: () => {}, setItem: () => { throw new Error("full"); } });
  full.add("1", click(7));
  await full.settle();
  expect(full.asked).toHaveLength(1);
});
