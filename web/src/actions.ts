// What a user can do, as words for the server. Everything that changes annotations passes here.

import type { Action, Api, Change, Class, Point, Target } from "./api";
import { bounds, inParts, meet, rings, type Bounds } from "./geometry";
import { born, Outbox, type Entry, type Shelf } from "./outbox";
import type { State, Values } from "./state";

export interface Told {
  trouble(sentence: string): void;
  hint(sentence: string): void;
  /** bring a part of level 0 into view */
  look(part: Bounds): void;
  /** something is on its way to the server */
  sent(entry: Entry): void;
  /** it was done; `object`: what to, if it was one */
  answered(entry: Entry, change: Change, object: number | null): void;
}

const CALLED: Partial<Record<Action["kind"], string>> = { click: "click", box: "box", stroke: "stroke" };

export class Actions {
  readonly outbox: Outbox;
  private asked = 0; // the events that we knew when the action was sent

  constructor(
    private readonly state: State,
    private readonly api: Api,
    shelf: Shelf | null,
    private readonly told: Told,
  ) {
    this.outbox = new Outbox((entry) => this.send(entry), shelf, {
      done: (entry, change) => this.done(entry, change),
      refused: (entry, reason) => this.refused(entry, reason),
      changed: () => this.changed(),
    });
    state.watch(["current"], ({ current }) => {
      if (current === null) state.set({ positive: true }); // an object begins with what is inside
    });
  }

  click(x: number, y: number, positive: boolean): void {
    const { current, label } = this.state.now;
    if (current === null && !positive) {
      this.told.hint("Begin with a click inside the object; clicks outside it correct the mask.");
      return;
    }
    const mpp = this.state.mpp;
    if (mpp !== null) this.begin({ kind: "click", object: current, x, y, positive, mpp, label });
  }

  /** Around another object, which is worked on then. */
  box(x0: number, y0: number, x1: number, y1: number): void {
    const { label } = this.state.now;
    const mpp = this.state.fresh;
    if (mpp !== null) this.begin({ kind: "box", object: null, x0, y0, x1, y1, mpp, label });
  }

  stroke(points: Point[], radius: number, erase: boolean): void {
    const { current, label } = this.state.now;
    if (current === null && erase) {
      this.told.hint("Select the object to erase from.");
      return;
    }
    const mpp = this.state.mpp;
    if (mpp === null) return;
    this.begin({ kind: "stroke", object: current, points, radius, erase, mpp, label });
  }

  /** Give the object that is being worked on, or a given one, a class; new ones get it too. */
  label(label: string, object: Target = this.state.now.current): void {
    this.state.set({ label });
    if (object === null) return;
    if (typeof object === "number" && this.state.now.objects.get(object)?.label === label) return;
    this.add({ kind: "label", object, label });
  }

  /** Give all objects of some classes other ones: pairs of the old and the new one. */
  relabel(labels: [string, string][]): void {
    this.add({ kind: "labels", labels });
  }

  name(object: number, name: string): void {
    if (this.state.now.objects.get(object)?.name !== name) this.add({ kind: "name", object, name });
  }

  /** Keep the parts of an object that were clicked or painted. */
  tidy(object: Target = this.state.now.current): void {
    const item = typeof object === "number" ? this.state.now.objects.get(object) : undefined;
    if (!item) this.told.hint("Select the object of which only some parts shall be kept.");
    else if (!inParts(item.geometry)) this.told.hint("This object has one part; there is nothing to remove.");
    else this.add({ kind: "tidy", object: item.id });
  }

  delete(object: Target = this.state.now.current): void {
    if (object === null) return;
    this.add({ kind: "delete", object });
    if (this.state.now.current === object) this.state.set({ current: null });
  }

  classes(classes: Class[]): void {
    this.add({ kind: "classes", classes });
  }

  undo(): void {
    const { canUndo, sending } = this.state.now;
    if (canUndo || sending.unsent > 0) this.add({ kind: "undo" });
    else this.told.hint("There is nothing to take back.");
  }

  redo(): void {
    const { canRedo, sending } = this.state.now;
    if (canRedo || sending.unsent > 0) this.add({ kind: "redo" });
    else this.told.hint("There is nothing to do again.");
  }

  select(current: Target): void {
    const label = typeof current === "number" ? this.state.now.objects.get(current)?.label : null;
    this.state.set({ current, ...(label && { label }) });
  }

  /** The next click begins another object. */
  finish(): void {
    this.state.set({ current: null });
  }

  private begin(action: Action & { object: Target }): void {
    if (this.state.now.hidden) {
      this.state.set({ hidden: false });
      this.told.hint("Outlines are shown again.");
    }
    const id = this.add(action);
    if (action.object === null && id !== null) this.state.set({ current: id });
  }

  private add(action: Action): string | null {
    const { slide } = this.state.now;
    if (!slide) return null;
    const id = uuid();
    const entry = { id, slide: slide.id, client: this.api.client, action };
    this.outbox.add(entry);
    this.told.sent(entry);
    return id;
  }

  private send(entry: Entry): Promise<Change> {
    const { slide, seq } = this.state.now;
    this.asked = seq;
    const after = entry.slide === slide?.id ? seq : null;
    return this.api.event(entry.slide, entry.id, entry.action, entry.client, after);
  }

  private done(entry: Entry, change: Change): void {
    const { slide } = this.state.now;
    if (entry.slide !== slide?.id) return;
    const made = born(entry, change);
    const before = this.state.now.objects;
    const known = this.state.apply(change, this.asked);
    if (made !== null && this.state.now.current === entry.id) {
      this.state.set({ current: this.state.now.objects.has(made) ? made : null });
    }
    const target = "object" in entry.action ? entry.action.object : null;
    this.told.answered(entry, change, made ?? (typeof target === "number" ? target : null));
    const again = entry.action.kind === "undo" || entry.action.kind === "redo";
    if (again) this.follow(change, before);
    if (again && this.state.now.current === null && change.objects.length === 1) {
      this.select(change.objects[0]!.id); // what was taken back or done again is worked on
    }
    if (change.seconds && (entry.action.kind === "click" || entry.action.kind === "box")) {
      const { encode, predict } = change.seconds;
      this.state.set({ seconds: (encode ?? 0) + (predict ?? 0) });
    }
    if (!known) void this.refresh();
  }

  /** Look at the one object that was taken back or done again, if it is out of view. */
  private follow({ objects, removed }: Change, before: Values["objects"]): void {
    const { view } = this.state.now;
    if (objects.length + removed.length !== 1) return;
    const item = objects[0] ?? before.get(removed[0]!);
    const part = bounds(rings(item?.geometry ?? null)) ?? bounds(rings(before.get(item?.id ?? 0)?.geometry ?? null));
    if (view && part && !meet(part, view)) this.told.look(part);
  }

  private refused(entry: Entry, reason: string): void {
    void this.explain(entry, reason);
    if (this.state.now.current !== entry.id) return;
    const heir = this.outbox.of(entry.slide).find(
      ({ action }) => "object" in action && action.object === null,
    );
    this.state.set({ current: heir?.id ?? null });
  }

  private async explain({ action, slide }: Entry, reason: string): Promise<void> {
    await this.refresh().catch(() => {}); // somebody else may have deleted what it was for
    const object = "object" in action ? action.object : null;
    const gone = typeof object === "number" && slide === this.state.now.slide?.id && !this.state.now.objects.has(object);
    const what = CALLED[action.kind] ?? "change";
    this.told.trouble(gone ? `This object was deleted meanwhile; your ${what} was not used.` : reason);
  }

  private changed(): void {
    const { sendable: unsent, phase, reason } = this.outbox;
    this.state.set({ sending: { unsent, phase, reason } });
  }

  /** Fetch what others, and other tabs, have done. Raises `Refusal`. */
  async refresh(): Promise<void> {
    const { slide, seq } = this.state.now;
    if (!slide) return;
    const change = await this.api.annotations(slide.id, seq);
    if (this.state.now.slide?.id !== slide.id) return;
    if (!this.state.apply(change, seq)) await this.refresh();
  }
}

/** A version 4 uuid; crypto.randomUUID is only there on https and localhost. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}
