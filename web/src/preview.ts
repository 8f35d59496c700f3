// Answers clicks at once in this browser, until the server's answer is there. Only the simplest
// case, in which nothing has to be guessed: an object that was made by clicks in one window, and
// changed by nothing else. What the server says replaces what is shown here.

import type { Change, Item, Target } from "./api";
import type { Answer, Ask, Place } from "./decoding/worker";
import { gridOf, isInner, markIn, nearest, working, type Grid, type Mark, type Window } from "./decoding/lattice";
import { area } from "./geometry";
import type { Entry } from "./outbox";
import type { Shown, State } from "./state";

/** The clicks on one object, and what has become of it. */
interface Chain {
  object: Target;
  /** of the object after the last of our clicks that was answered */
  version: number | null;
  place: Place;
  grid: Grid;
  window: Window;
  marks: Mark[];
  /** clicks that the server has not answered */
  pending: string[];
  last: string;
  /** the area of what was shown for the last click, px of level 0 */
  shown: number | null;
}

const REST = 150; // ms that the mouse rests until the window below it is fetched
const ALIKE = 0.01; // share of the area by which a preview may differ from the answer
const FAILURES = 3; // in a row, after which this page does not try any more

export class Preview {
  private worker: Worker | null = null;
  private chain: Chain | null = null;
  private model: string | null = null; // that answered here
  private server: string | null = null; // that answered there
  private made = 0; // objects that have no number yet
  private readonly asked = new Map<string, Chain>();
  private failures = 0;
  private rest: ReturnType<typeof setTimeout> | undefined;
  private fetched = "";

  constructor(
    private readonly state: State,
    private readonly waiting: () => Entry[],
    private readonly hint: (sentence: string) => void,
  ) {
    let wanted = "";
    state.watch(["sending", "slide"], () => this.tidy());
    state.watch(["here", "info"], ({ here, info }) => {
      const now = `${here} ${info?.model.decoder}`;
      if (now === wanted) return;
      wanted = now;
      this.failures = 0;
      this.forget();
    });
    state.watch(["cursor", "ready", "here", "tool", "current"], () => this.hover());
  }

  /** A click is on its way to the server. */
  click({ id, action, slide }: Entry): void {
    if (!this.used || action.kind !== "click" || slide !== this.state.now.slide?.id) return;
    const before = this.continued(action.object, id);
    const chain = this.placed(before, action.object, action.x, action.y, action.mpp);
    this.chain = chain;
    if (!chain) return;
    const at = working(this.state.now.slide, chain.grid, action.x, action.y)!;
    const after = before ? before.last : null;
    Object.assign(chain, {
      object: action.object ?? id,
      marks: [...chain.marks, markIn(chain.window, at, action.positive)],
      pending: [...chain.pending, id],
      last: id,
      shown: null,
    });
    this.asked.set(id, chain);
    this.ask({ kind: "click", id, place: chain.place, clicks: chain.marks, after });
  }

  /** The server has done something; `object`: what it was done to. */
  answered(entry: Entry, change: Change, object: number | null): void {
    const { previews } = this.state.now;
    if (object !== null && previews.some((each) => each.object === entry.id)) {
      const named = (each: Shown) =>
        each.object === entry.id ? { ...each, object, item: { ...each.item, id: object } } : each;
      this.state.set({ previews: previews.map(named) });
    }
    this.server = change.model ?? this.server;
    if (!this.agreed) return this.forget();
    const { chain } = this;
    if (!chain?.pending.includes(entry.id)) return;
    chain.pending = chain.pending.filter((each) => each !== entry.id);
    if (object !== null) chain.object = object;
    const item = change.objects.find((each) => each.id === chain.object);
    if (!item) this.chain = null;
    else chain.version = item.version;
    this.compare();
  }

  /** Whether both answer with the same model, as far as is known. */
  private get agreed(): boolean {
    return this.model === null || this.server === null || this.model === this.server;
  }

  private get used(): boolean {
    const { here, info } = this.state.now;
    return here && !!info?.model.decoder && this.failures < FAILURES;
  }

  /** The chain that a click on an object goes on with, if there is one. */
  private continued(object: Target, id: string): Chain | null {
    const { chain } = this;
    if (!chain || object === null || chain.object !== object) return null;
    const others = this.waiting().filter((each) => each.id !== id);
    if (others.some((each) => !chain.pending.includes(each.id))) return null;
    const item = typeof object === "number" ? this.state.now.objects.get(object) : null;
    return item === null || item?.version === chain.version ? chain : null;
  }

  /** Where the model looks for a click; `null`: this is not known here. */
  private placed(chain: Chain | null, object: Target, x: number, y: number, mpp: number): Chain | null {
    const { slide, info } = this.state.now;
    if (!slide || !info || (object !== null && !chain)) return null;
    const side = info.model.window_px;
    const grid = chain?.grid ?? gridOf(slide, mpp);
    const at = working(slide, grid, x, y);
    if (!at) return null;
    if (chain) return isInner(grid, chain.window, at, side) ? { ...chain } : null;
    const window = nearest(grid, at, side);
    const place = { slide: slide.id, mpp, x: window.x, y: window.y };
    return { object, version: null, place, grid, window, marks: [], pending: [], last: "", shown: null };
  }

  private hear(answer: Answer): void {
    if ("problem" in answer) {
      this.chain = null;
      this.fetched = "";
      if (!answer.stale && ++this.failures === FAILURES) this.hint(`Clicks are not answered in this browser: ${answer.problem}`);
      return;
    }
    this.failures = 0;
    this.model = answer.name;
    if (!this.agreed) return this.forget();
    this.state.set({ previewed: answer.ms });
    const asked = this.asked.get(answer.id);
    this.asked.delete(answer.id);
    if (!asked) return;
    const [scaleX, scaleY] = asked.grid.scale;
    const { x: left, y: top } = asked.window;
    if (this.chain?.last === answer.id) this.chain.shown = answer.pixels * scaleX * scaleY;
    const action = this.waiting().find((each) => each.id === answer.id)?.action;
    if (action?.kind !== "click") return this.compare(); // the server was first
    const coordinates = answer.rings.map((ring) =>
      ring.map(([x, y]): [number, number] => [(x + left) * scaleX, (y + top) * scaleY]),
    );
    const object = action.object ?? answer.id;
    const { objects, previews } = this.state.now;
    const before = previews.find((each) => each.object === object);
    const id = typeof object === "number" ? object : (before?.item.id ?? --this.made);
    const item = { ...(objects.get(id) ?? fresh(id, action.label)), geometry: { type: "Polygon" as const, coordinates } };
    const others = previews.filter((each) => each !== before);
    this.state.set({ previews: [...others, { entry: answer.id, object, item }] });
  }

  /** A preview that was not what the server said leads nowhere. */
  private compare(): void {
    const { chain } = this;
    if (chain?.shown == null || chain.pending.length > 0 || typeof chain.object !== "number") return;
    const item = this.state.now.objects.get(chain.object);
    if (item?.version !== chain.version) return;
    const [ours, theirs] = [chain.shown, area(item.geometry)];
    if (Math.abs(ours - theirs) > ALIKE * Math.max(ours, theirs)) this.chain = null;
  }

  /** A preview is shown while its click waits; a click that was given up ends its chain. */
  private tidy(): void {
    const waits = new Set(this.waiting().map((each) => each.id));
    const { previews } = this.state.now;
    const kept = previews.filter((each) => waits.has(each.entry));
    if (kept.length < previews.length) this.state.set({ previews: kept });
    if (this.chain?.pending.some((each) => !waits.has(each))) this.chain = null;
  }

  private hover(): void {
    clearTimeout(this.rest);
    const { cursor, ready, tool } = this.state.now;
    if (!this.used || !cursor || ready !== true || tool !== "click") return;
    this.rest = setTimeout(() => this.fetch(cursor.x, cursor.y), REST);
  }

  private fetch(x: number, y: number): void {
    const { current } = this.state.now;
    const mpp = this.state.mpp;
    const before = this.continued(current, "");
    const place = mpp === null ? null : this.placed(before, current, x, y, mpp)?.place;
    if (!place || JSON.stringify(place) === this.fetched) return;
    this.fetched = JSON.stringify(place);
    this.ask({ kind: "look", place });
  }

  private ask(ask: Ask): void {
    if (!this.worker) {
      this.worker = new Worker(new URL("./decoding/worker.ts", import.meta.url), { type: "module", name: "decoding" });
      this.worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => this.hear(data));
      this.worker.addEventListener("error", (event) => {
        event.preventDefault();
        this.forget();
        this.failures = FAILURES - 1;
        this.hear({ problem: event.message || "it cannot run what this takes", stale: false });
      });
      this.worker.postMessage({ kind: "begin", root: new URL("api/", document.baseURI).href } satisfies Ask);
    }
    this.worker.postMessage(ask);
  }

  /** Begin again: another model, or nobody wants it any more. */
  private forget(): void {
    this.worker?.terminate();
    this.worker = null;
    this.chain = null;
    this.model = null;
    this.fetched = "";
    this.asked.clear();
    if (this.state.now.previews.length > 0) this.state.set({ previews: [] });
  }
}

/** An object of which nothing is known but its class. */
function fresh(id: number, label: string): Item {
  return {
    id, label, name: "", mpp: null, version: 0, clicks: [], box: null, geometry: null, area_um2: null,
    quality: null, window: null,
  };
}
