// What was done and not yet acknowledged. One action after the other, in order; what cannot be
// sent now is kept in the browser's storage and sent later with the same id, so that the server
// does nothing twice. No DOM.

import { Refusal, type Action, type Change } from "./api";

export interface Entry {
  id: string;
  slide: string;
  client: string;
  action: Action;
}

export interface Shelf {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface Told {
  /** the server did it */
  done(entry: Entry, change: Change): void;
  /** the server will never do it, for this reason */
  refused(entry: Entry, reason: string): void;
  /** something about the outbox is different */
  changed(): void;
}

const PREFIX = "histoclick.unsent.";
const PATIENCE = [500, 1000, 2000, 4000, 8000]; // ms between tries

export class Outbox {
  phase: "idle" | "sending" | "waiting" = "idle";
  reason = "";
  private entries: { key: string; entry: Entry }[] = [];
  private served: ReadonlySet<string> = new Set();
  private tries = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private count = 0;

  /** `shelf`: such as localStorage. What lies there from before a crash is taken up. */
  constructor(
    private readonly send: (entry: Entry) => Promise<Change>,
    private readonly shelf: Shelf | null,
    private readonly told: Told,
  ) {
    this.entries = [...stored(shelf)];
  }

  /** The slides that the server has now; actions on others wait for a server that has them. */
  serve(slides: Iterable<string>): void {
    this.served = new Set(slides);
    this.work();
  }

  add(entry: Entry): void {
    const key = `${PREFIX}${Date.now()}.${String(this.count++).padStart(6, "0")}.${entry.id}`;
    this.entries.push({ key, entry });
    this.keep(key, entry);
    this.told.changed();
    this.work();
  }

  /** What waits for a slide, oldest first. */
  of(slide: string): Entry[] {
    return this.entries.filter(({ entry }) => entry.slide === slide).map(({ entry }) => entry);
  }

  get sendable(): number {
    return this.entries.filter(({ entry }) => this.served.has(entry.slide)).length;
  }

  /** How many wait for slides that are not served now. */
  get elsewhere(): number {
    return this.entries.length - this.sendable;
  }

  /** Try again at once. */
  retry(): void {
    clearTimeout(this.timer);
    if (this.phase === "waiting") this.phase = "idle";
    this.work();
  }

  /** Give up what waits for the slides that are served. */
  discard(): void {
    for (const { key, entry } of this.entries) {
      if (this.served.has(entry.slide)) this.shelf?.removeItem(key);
    }
    this.entries = this.entries.filter(({ entry }) => !this.served.has(entry.slide));
    this.tries = 0;
    if (this.phase === "waiting") this.phase = "idle";
    this.told.changed();
  }

  private work(): void {
    if (this.phase !== "idle") return;
    const next = this.entries.find(({ entry }) => this.served.has(entry.slide));
    if (!next) return;
    this.phase = "sending";
    this.told.changed();
    this.send(next.entry).then(
      (change) => this.acknowledged(next.key, next.entry, change),
      (error: unknown) => this.failed(next.key, next.entry, error),
    );
  }

  private acknowledged(key: string, entry: Entry, change: Change): void {
    const made = born(entry, change);
    if (made !== null) this.resolve(entry.id, made);
    this.finish(key);
    this.told.done(entry, change);
    this.next();
  }

  private failed(key: string, entry: Entry, error: unknown): void {
    const refusal = error instanceof Refusal ? error : new Refusal(500, String(error));
    if (refusal.passes || refusal.barred) {
      this.phase = "waiting";
      this.reason = refusal.message;
      const pause = PATIENCE[Math.min(this.tries++, PATIENCE.length - 1)];
      this.timer = setTimeout(() => this.retry(), pause);
      this.told.changed();
      return;
    }
    this.orphan(entry.id);
    this.finish(key);
    this.told.refused(entry, refusal.message);
    this.next();
  }

  private finish(key: string): void {
    this.entries = this.entries.filter((each) => each.key !== key);
    this.shelf?.removeItem(key);
  }

  private next(): void {
    this.tries = 0;
    this.phase = "idle";
    this.reason = "";
    this.told.changed();
    this.work();
  }

  /** The object that an event made has its number now: later actions on it say it. */
  private resolve(event: string, object: number): void {
    this.rewrite((entry) => aim(entry, event, object));
  }

  /** An event will make no object: the first later action that can begin one does. */
  private orphan(event: string): void {
    let heir: string | null = null;
    this.rewrite((entry) => {
      if (!aimed(entry, event)) return entry;
      if (heir !== null) return aim(entry, event, heir);
      if (!begins(entry.action)) return entry;
      heir = entry.id;
      return aim(entry, event, null);
    });
  }

  private rewrite(change: (entry: Entry) => Entry): void {
    this.entries = this.entries.map(({ key, entry }) => {
      const next = change(entry);
      if (next !== entry) this.keep(key, next);
      return { key, entry: next };
    });
  }

  private keep(key: string, entry: Entry): void {
    try {
      this.shelf?.setItem(key, JSON.stringify(entry));
    } catch {
      // full or forbidden: what waits lives as long as the page
    }
  }
}

function* stored(shelf: Shelf | null): Iterable<{ key: string; entry: Entry }> {
  const keys: string[] = [];
  for (let i = 0; i < (shelf?.length ?? 0); i++) {
    const key = shelf?.key(i);
    if (key?.startsWith(PREFIX)) keys.push(key);
  }
  for (const key of keys.sort()) {
    try {
      const entry = JSON.parse(shelf?.getItem(key) ?? "") as Entry;
      if (entry.id && entry.slide && entry.client && entry.action.kind) yield { key, entry };
    } catch {
      shelf?.removeItem(key); // not ours to read
    }
  }
}

function aimed(entry: Entry, event: string): boolean {
  return "object" in entry.action && entry.action.object === event;
}

function aim(entry: Entry, event: string, object: number | string | null): Entry {
  if (!aimed(entry, event)) return entry;
  return { ...entry, action: { ...entry.action, object } as Action };
}

function begins(action: Action): boolean {
  if (action.kind === "click") return action.positive;
  return action.kind === "box" || (action.kind === "stroke" && !action.erase);
}

/** The object that an event made, if it was to make one: the newest that the click lies on. */
export function born({ action }: Entry, change: Change): number | null {
  if (!("object" in action) || action.object !== null) return null;
  const fits = change.objects.filter(
    ({ clicks }) =>
      action.kind !== "click" || clicks.some((each) => each.x === action.x && each.y === action.y),
  );
  return fits.length > 0 ? Math.max(...fits.map((each) => each.id)) : null;
}
