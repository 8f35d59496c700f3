// Outlines, clicks and what is being drawn, on one canvas over the slide.

import type { Point } from "./api";
import type { Bounds } from "./geometry";
import type { Entry } from "./outbox";
import { css, Outlines } from "./outlines";
import { Sheet } from "./sheet";
import type { Placement, Stage } from "./stage";
import type { State } from "./state";

/** What a tool shows while it is being used, px of level 0. */
export interface Sketch {
  box?: Bounds;
  stroke?: { points: Point[]; radius: number; erase: boolean };
}

const POSITIVE = "#22c55e";
const NEGATIVE = "#f43f5e";
const REST = 120; // ms after which a view is not moving any more

export class Overlay {
  readonly canvas = document.createElement("canvas");
  sketch: Sketch = {};
  private readonly context = this.canvas.getContext("2d")!;
  private readonly outlines: Outlines;
  private readonly sheet: Sheet;
  private frame = 0;
  private rest: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly stage: Stage,
    private readonly state: State,
    private readonly waiting: () => Entry[],
  ) {
    this.outlines = new Outlines(state);
    this.sheet = new Sheet(state, this.outlines);
    this.canvas.className = "overlay";
    this.canvas.dataset["testid"] = "overlay";
    this.canvas.setAttribute("aria-hidden", "true");
    stage.viewer.addHandler("update-viewport", () => this.moved());
    stage.viewer.addHandler("resize", () => this.request());
    stage.viewer.addHandler("close", () => this.request());
    const seen = ["objects", "classes", "current", "opacity", "fill", "hidden", "sending", "previews"] as const;
    state.watch([...seen, "tool", "radius", "cursor", "theme", "slide"], () => this.request());
  }

  /** Draw before the next frame. */
  request(): void {
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.draw());
  }

  private moved(): void {
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      this.rest = undefined;
      this.draw();
    }, REST);
    this.draw();
  }

  private draw(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const at = this.stage.placement;
    const { width, height } = this.resized();
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, width, height);
    if (!at || !this.state.now.slide) return;
    const ratio = window.devicePixelRatio || 1;
    const moving = this.rest !== undefined;
    if (!this.state.now.hidden) {
      if (this.outlines.many) this.sheet.draw(this.context, at, ratio, !moving);
      else this.outlines.draw(this.context, at, ratio);
    }
    this.plain();
    if (!this.state.now.hidden) this.drawCurrent(at);
    this.drawWaiting(at);
    this.drawSketch(at);
    this.drawBrush(at);
  }

  private resized(): { width: number; height: number } {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    return { width, height };
  }

  /** Draw in CSS px of the stage from now on. */
  private plain(): void {
    const ratio = window.devicePixelRatio || 1;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  /** The window of the model, the box and the clicks of the object that is being worked on. */
  private drawCurrent(at: Placement): void {
    const { item, context } = { item: this.state.item, context: this.context };
    if (!item) return;
    if (item.window) {
      const [x, y, width, height] = item.window;
      context.setLineDash([6, 5]);
      for (const [colour, lag] of [["rgb(0 0 0 / 0.35)", 0], ["rgb(255 255 255 / 0.7)", 5.5]] as const) {
        context.strokeStyle = colour;
        context.lineWidth = 1;
        context.lineDashOffset = lag;
        context.strokeRect(x * at.scale + at.x, y * at.scale + at.y, width * at.scale, height * at.scale);
      }
      context.setLineDash([]);
    }
    if (item.box) {
      const [x0, y0, x1, y1] = item.box;
      this.drawBox(at, { x0, y0, x1, y1 });
    }
    for (const each of item.clicks) this.drawClick(at, each.x, each.y, each.positive, false);
  }

  /** What is on its way to the server. */
  private drawWaiting(at: Placement): void {
    const waiting = this.waiting();
    if (waiting.length > 0 && this.state.now.sending.phase === "sending") this.request(); // it turns
    for (const { action } of waiting) {
      if (action.kind === "click") this.drawClick(at, action.x, action.y, action.positive, true);
      else if (action.kind === "box") this.drawBox(at, action);
      else if (action.kind === "stroke") this.drawStroke(at, action);
    }
  }

  private drawSketch(at: Placement): void {
    if (this.sketch.box) this.drawBox(at, this.sketch.box);
    if (this.sketch.stroke) this.drawStroke(at, this.sketch.stroke);
  }

  private drawClick(at: Placement, x0: number, y0: number, positive: boolean, waits: boolean): void {
    const [x, y] = [x0 * at.scale + at.x, y0 * at.scale + at.y];
    const { context } = this;
    const radius = 7;
    if (waits) {
      const turn = performance.now() / 160;
      for (const [colour, width] of [["rgb(0 0 0 / 0.5)", 4], ["#fff", 2]] as const) {
        context.beginPath();
        context.arc(x, y, radius + 5, turn, turn + 1.5 * Math.PI);
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.stroke();
      }
    }
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = positive ? POSITIVE : NEGATIVE;
    context.globalAlpha = waits ? 0.7 : 1;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 1.75;
    context.strokeStyle = "#fff";
    context.stroke();
    context.beginPath();
    context.moveTo(x - 3, y);
    context.lineTo(x + 3, y);
    if (positive) {
      context.moveTo(x, y - 3);
      context.lineTo(x, y + 3);
    }
    context.stroke();
  }

  private drawBox(at: Placement, box: Bounds): void {
    const { context } = this;
    const [x, y] = [box.x0 * at.scale + at.x, box.y0 * at.scale + at.y];
    const [width, height] = [(box.x1 - box.x0) * at.scale, (box.y1 - box.y0) * at.scale];
    context.lineWidth = 3.5;
    context.strokeStyle = "rgb(255 255 255 / 0.8)";
    context.strokeRect(x, y, width, height);
    context.lineWidth = 1.5;
    context.strokeStyle = POSITIVE;
    context.strokeRect(x, y, width, height);
  }

  private drawStroke(at: Placement, stroke: NonNullable<Sketch["stroke"]>): void {
    const { context } = this;
    const colour = this.state.colour(this.state.item?.label ?? this.state.now.label);
    context.beginPath();
    stroke.points.forEach(([x, y], i) => {
      const [sx, sy] = [x * at.scale + at.x, y * at.scale + at.y];
      if (i === 0) context.moveTo(sx, sy);
      context.lineTo(sx, sy + (stroke.points.length === 1 ? 0.01 : 0));
    });
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = 2 * stroke.radius * at.scale;
    context.strokeStyle = stroke.erase ? "rgb(255 255 255 / 0.55)" : css(colour, 0.55);
    context.stroke();
  }

  private drawBrush(at: Placement): void {
    const { tool, radius, cursor } = this.state.now;
    if (!cursor || (tool !== "brush" && tool !== "eraser")) return;
    const { context } = this;
    for (const [colour, width] of [["rgb(0 0 0 / 0.55)", 3], ["#fff", 1.25]] as const) {
      context.beginPath();
      context.arc(cursor.x * at.scale + at.x, cursor.y * at.scale + at.y, radius, 0, 2 * Math.PI);
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.setLineDash(tool === "eraser" ? [5, 4] : []);
      context.stroke();
    }
    context.setLineDash([]);
  }
}
