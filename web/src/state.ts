// What the viewer knows. No DOM, no HTTP: views watch it, and what a user does goes through
// `actions`, which asks the server; its replies come back here.

import type { Change, Class, Colour, Info, Item, OpenSlide, Slide, Target } from "./api";
import { mppText, nearest, workable } from "./geometry";

export type Tool = "select" | "click" | "box" | "brush" | "eraser";
export type Theme = "system" | "light" | "dark";

/** How things stand with the server. `waiting`: it cannot be reached, what was done is kept. */
export interface Sending {
  unsent: number;
  phase: "idle" | "sending" | "waiting";
  reason: string;
}

export interface View {
  /** um per screen px, or px of level 0 per screen px where the slide has no scale */
  mpp: number;
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/** An object as this browser sees it after a click that waits: `entry`. `object`: its id, or the event
 * that will make it; `item` has an id below 0 then. */
export interface Shown {
  entry: string;
  object: Target;
  item: Item;
}

export interface Values {
  info: Info | null;
  slides: Slide[];
  slide: OpenSlide | null;
  seq: number;
  objects: ReadonlyMap<number, Item>;
  classes: Class[];
  canUndo: boolean;
  canRedo: boolean;
  /** the object that clicks go to: an id, the event that will make it, or none yet */
  current: Target;
  label: string;
  tool: Tool;
  positive: boolean;
  radius: number; // of the brush, screen px
  working: number | "auto"; // um per px for new objects
  view: View | null;
  cursor: { x: number; y: number } | null;
  opacity: number;
  fill: boolean;
  hidden: boolean;
  theme: Theme;
  user: string; // for the log; "" leaves it to the server
  ready: boolean | null; // whether the view is encoded; null: nobody asked
  sending: Sending;
  seconds: number | null; // that the last click took on the server
  here: boolean; // whether clicks are answered in this browser until the server's answer comes
  previews: readonly Shown[]; // such answers
  previewed: number | null; // ms that the last one took
}

export const START: Values = {
  info: null,
  slides: [],
  slide: null,
  seq: 0,
  objects: new Map(),
  classes: [],
  canUndo: false,
  canRedo: false,
  current: null,
  label: "",
  tool: "click",
  positive: true,
  radius: 24,
  working: "auto",
  view: null,
  cursor: null,
  opacity: 0.35,
  fill: true,
  hidden: false,
  theme: "system",
  user: "",
  ready: null,
  sending: { unsent: 0, phase: "idle", reason: "" },
  seconds: null,
  here: false,
  previews: [],
  previewed: null,
};

export type Key = keyof Values;
type Watcher = (now: Readonly<Values>) => void;

export class State {
  private values: Values;
  private readonly watchers: { keys: readonly Key[]; tell: Watcher }[] = [];

  constructor(values: Partial<Values> = {}) {
    this.values = { ...START, ...values };
  }

  get now(): Readonly<Values> {
    return this.values;
  }

  /** Take new values and tell those who watch one that changed. */
  set(values: Partial<Values>): void {
    const changed = (Object.keys(values) as Key[]).filter(
      (key) => !Object.is(values[key], this.values[key]),
    );
    if (changed.length === 0) return;
    this.values = { ...this.values, ...values };
    for (const { keys, tell } of [...this.watchers]) {
      if (keys.some((key) => changed.includes(key))) tell(this.values);
    }
  }

  /** Call `tell` now, and whenever one of `keys` has changed. */
  watch(keys: readonly Key[], tell: Watcher): void {
    this.watchers.push({ keys, tell });
    tell(this.values);
  }

  /** Another slide, of which nothing is known yet. */
  open(slide: OpenSlide): void {
    const { objects, seq, classes, canUndo, canRedo, current, view, cursor, ready } = START;
    this.set({ slide, objects, seq, classes, canUndo, canRedo, current, view, cursor, ready });
  }

  /**
   * Take over what the server says has changed after event `after`. Returns `false` if the server
   * has another history than we thought: then everything was forgotten, and one should ask again.
   */
  apply(change: Change, after: number): boolean {
    const { seq, objects } = this.values;
    if (change.seq < after) {
      this.set({ seq: 0, objects: new Map(), current: null });
      return false;
    }
    const next = new Map(objects);
    for (const item of change.objects) {
      if (item.version >= (next.get(item.id)?.version ?? 0)) next.set(item.id, item);
    }
    for (const id of change.removed) {
      if ((next.get(id)?.version ?? 0) <= change.seq) next.delete(id);
    }
    const known = [...next].sort(([a], [b]) => a - b); // as they were made
    const newest = change.seq >= seq;
    const { current } = this.values;
    this.set({
      objects: change.objects.length + change.removed.length > 0 ? new Map(known) : objects,
      seq: after <= seq ? Math.max(seq, change.seq) : seq,
      ...(newest && {
        ...(change.classes.length > 0 && { classes: change.classes }),
        canUndo: change.can_undo,
        canRedo: change.can_redo,
      }),
      ...(typeof current === "number" && !next.has(current) && { current: null }),
    });
    if (!this.labels.some((each) => each.name === this.values.label)) {
      this.set({ label: this.values.classes[0]?.name ?? "" });
    }
    return true;
  }

  get item(): Item | null {
    const { current, objects } = this.values;
    return typeof current === "number" ? (objects.get(current) ?? null) : null;
  }

  /** um per px at which the next action works: the object's own, else as chosen or by the zoom. A
   * slide that does not say its own counts as 1 um per px. */
  get mpp(): number | null {
    return this.item?.mpp ?? this.fresh;
  }

  /** um per px at which a new object is worked on. */
  get fresh(): number | null {
    const { slide, view, working } = this.values;
    if (!slide) return null;
    return working !== "auto" ? working : nearest(this.choices, view?.mpp ?? slide.mpp ?? 1);
  }

  /** A working resolution, for people. */
  scaleText(mpp: number): string {
    return this.values.slide?.mpp == null ? `1 : ${mppText(mpp)}` : `${mppText(mpp)} µm/px`;
  }

  /** The working resolutions that suit the slide. */
  get choices(): number[] {
    const { slide } = this.values;
    return slide ? workable(slide.mpp ?? 1, Math.max(slide.width, slide.height)) : [];
  }

  /** The classes, and those that only objects have: from a file, or removed from the list. */
  get labels(): Class[] {
    const { classes, objects } = this.values;
    const others = new Set([...objects.values()].map((item) => item.label));
    for (const each of classes) others.delete(each.name);
    others.delete("");
    return [...classes, ...[...others].sort().map((name) => ({ name, colour: PLAIN, key: "" }))];
  }

  colour(label: string): Colour {
    return this.values.classes.find((each) => each.name === label)?.colour ?? PLAIN;
  }
}

export const PLAIN: Colour = [70, 150, 240]; // of what has no class
