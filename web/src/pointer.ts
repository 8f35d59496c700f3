// Mouse, pen and fingers on the slide, as actions. Two fingers always move the view.

import type { Actions } from "./actions";
import type { Point } from "./api";
import { bounds, inside, rings } from "./geometry";
import type { Overlay } from "./overlay";
import type { Stage } from "./stage";
import type { State } from "./state";

const STILL = { mouse: 4, pen: 6, touch: 12 }; // screen px that a click may move
const LEAST_BOX = 8; // screen px; a box that is smaller both ways was meant as a click
const MOST_POINTS = 4000; // of one stroke

interface Press {
  x: number; // screen px of the stage
  y: number;
  far: number; // how far it may move and be a click
  moved: boolean;
  negative: boolean;
}

export class Pointer {
  /** While the space bar is down every tool pans. */
  panning = false;
  private press: Press | null = null;
  private second: { x: number; y: number } | null = null; // of the other button
  private points: Point[] = []; // of a stroke, px of level 0

  constructor(
    private readonly stage: Stage,
    private readonly overlay: Overlay,
    private readonly state: State,
    private readonly actions: Actions,
    private readonly hint: (sentence: string) => void,
  ) {
    const { viewer } = stage;
    viewer.addHandler("canvas-press", (event) => {
      this.down(event.position.x, event.position.y, event.pointerType, event.originalEvent);
    });
    viewer.addHandler("canvas-drag", (event) => {
      if (this.move(event.position.x, event.position.y)) event.preventDefaultAction = true;
    });
    viewer.addHandler("canvas-release", (event) => {
      if (event.insideElementPressed) this.up(event.position.x, event.position.y);
    });
    viewer.addHandler("canvas-pinch", () => this.cancel());
    viewer.addHandler("canvas-nonprimary-press", (event) => {
      this.second = event.button === 2 ? event.position : null;
    });
    viewer.addHandler("canvas-nonprimary-release", (event) => {
      const from = this.second;
      this.second = null;
      if (!from || event.button !== 2) return;
      const { x, y } = event.position;
      if (Math.hypot(x - from.x, y - from.y) >= STILL.mouse) return;
      if (this.clicks) this.tap(from.x, from.y, true);
    });
    viewer.addHandler("canvas-contextmenu", (event) => {
      event.preventDefault = true;
    });
    this.follow(stage.element);
  }

  /** Drop what is being drawn. */
  cancel(): void {
    this.press = null;
    this.points = [];
    this.overlay.sketch = {};
    this.overlay.request();
  }

  get busy(): boolean {
    return this.press !== null;
  }

  private get draws(): boolean {
    const { tool } = this.state.now;
    return !this.panning && tool !== "click" && tool !== "select";
  }

  /** Whether a click says what is inside or outside; the box tool draws when it is dragged. */
  private get clicks(): boolean {
    const { tool } = this.state.now;
    return tool === "click" || tool === "box";
  }

  private down(x: number, y: number, type: string, event: Event): void {
    const { ctrlKey, altKey, metaKey } = event as MouseEvent;
    const far = STILL[type as keyof typeof STILL] ?? STILL.mouse;
    this.press = { x, y, far, moved: false, negative: ctrlKey || altKey || metaKey };
    this.points = [];
    if (this.draws) this.sketch(x, y);
  }

  /** Whether the view stays where it is. */
  private move(x: number, y: number): boolean {
    const { press } = this;
    if (!press) return false;
    press.moved ||= Math.hypot(x - press.x, y - press.y) >= press.far;
    if (!this.draws) return !press.moved;
    this.sketch(x, y);
    return true;
  }

  private up(x: number, y: number): void {
    const { press, points } = this;
    if (!press) return;
    if (this.draws) this.sketch(x, y);
    const { box } = this.overlay.sketch;
    this.cancel();
    const { tool } = this.state.now;
    if (this.panning) return;
    const large = Math.max(Math.abs(x - press.x), Math.abs(y - press.y)) >= LEAST_BOX;
    if (tool === "box" && box && press.moved && large) this.actions.box(box.x0, box.y0, box.x1, box.y1);
    else if ((tool === "brush" || tool === "eraser") && points.length > 0)
      this.actions.stroke(points, this.reach, tool === "eraser");
    else if (tool === "box" && press.moved) {
      this.hint("That was too small for a box, so it counts as a click.");
      this.tap(press.x, press.y, press.negative);
    } else if (!press.moved && this.clicks) this.tap(press.x, press.y, press.negative);
    else if (!press.moved && tool === "select") this.pick(press.x, press.y);
  }

  /** The radius of the brush in px of level 0. */
  private get reach(): number {
    return this.state.now.radius / (this.stage.placement?.scale ?? 1);
  }

  private tap(x: number, y: number, negative: boolean): void {
    const at = this.stage.toSlide(x, y);
    const { slide, positive } = this.state.now;
    if (!at || !slide) return;
    const within = at[0] >= 0 && at[1] >= 0 && at[0] < slide.width && at[1] < slide.height;
    if (within) this.actions.click(at[0], at[1], positive && !negative);
  }

  /** Select the smallest object under a point. */
  private pick(x: number, y: number): void {
    const at = this.stage.toSlide(x, y);
    if (!at) return;
    let [best, least] = [null as number | null, Infinity];
    for (const item of this.state.now.objects.values()) {
      const all = rings(item.geometry);
      const box = bounds(all);
      if (!box || at[0] < box.x0 || at[0] > box.x1 || at[1] < box.y0 || at[1] > box.y1) continue;
      const size = item.area_um2 ?? (box.x1 - box.x0) * (box.y1 - box.y0);
      if (size < least && inside(all, ...at)) [best, least] = [item.id, size];
    }
    this.actions.select(best);
  }

  private sketch(x: number, y: number): void {
    const { tool } = this.state.now;
    const at = this.stage.toSlide(x, y);
    if (!at || !this.press) return;
    if (tool === "box") {
      const from = this.stage.toSlide(this.press.x, this.press.y)!;
      const [x0, x1] = [Math.min(from[0], at[0]), Math.max(from[0], at[0])];
      const [y0, y1] = [Math.min(from[1], at[1]), Math.max(from[1], at[1])];
      this.overlay.sketch = { box: { x0, y0, x1, y1 } };
    } else {
      const last = this.points.at(-1);
      const step = Math.max(1, this.state.now.radius / 6) / (this.stage.placement?.scale ?? 1);
      const far = !last || Math.hypot(at[0] - last[0], at[1] - last[1]) >= step;
      if (far && this.points.length < MOST_POINTS) this.points.push(at);
      this.overlay.sketch = {
        stroke: { points: this.points, radius: this.reach, erase: tool === "eraser" },
      };
    }
    this.overlay.request();
  }

  /** Where the mouse is; and the middle button, which pans with every tool. */
  private follow(element: HTMLElement): void {
    element.addEventListener("pointermove", (event) => {
      const frame = element.getBoundingClientRect();
      const at = this.stage.toSlide(event.clientX - frame.left, event.clientY - frame.top);
      this.state.set({ cursor: at && event.pointerType !== "touch" ? { x: at[0], y: at[1] } : null });
      if ((event.buttons & 4) !== 0) this.stage.pan(-event.movementX, -event.movementY);
    });
    element.addEventListener("pointerleave", () => this.state.set({ cursor: null }));
    element.addEventListener("mousedown", (event) => {
      if (event.button === 1) event.preventDefault(); // no scrolling by the middle button
    });
  }
}
