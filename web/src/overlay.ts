// Outlines, clicks and what is being drawn, on one canvas over the slide.

import type { Colour, Item, Point } from "./api";
import { bounds, meet, rings, thinned, type Bounds } from "./geometry";
import type { Entry } from "./outbox";
import type { Placement, Stage } from "./stage";
import type { State } from "./state";

/** What a tool shows while it is being used, px of level 0. */
export interface Sketch {
  box?: Bounds;
  stroke?: { points: Point[]; radius: number; erase: boolean };
}

interface Outline {
  item: Item;
  box: Bounds | null;
  paths: Map<number, Path2D>; // by level of detail; about the corner of the box
}

const POSITIVE = "#22c55e";
const NEGATIVE = "#f43f5e";
const SMALLEST = 2; // screen px; what is smaller is a dot

export class Overlay {
  readonly canvas = document.createElement("canvas");
  sketch: Sketch = {};
  private readonly context = this.canvas.getContext("2d")!;
  private readonly outlines = new Map<number, Outline>();
  private frame = 0;

  constructor(
    private readonly stage: Stage,
    private readonly state: State,
    private readonly waiting: () => Entry[],
  ) {
    this.canvas.className = "overlay";
    this.canvas.dataset["testid"] = "overlay";
    this.canvas.setAttribute("aria-hidden", "true");
    stage.viewer.addHandler("update-viewport", () => this.draw());
    stage.viewer.addHandler("resize", () => this.request());
    stage.viewer.addHandler("close", () => this.request());
    const seen = ["objects", "classes", "current", "opacity", "fill", "hidden", "sending"] as const;
    state.watch([...seen, "tool", "radius", "cursor", "theme", "slide"], () => this.request());
  }

  /** Draw before the next frame. */
  request(): void {
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const at = this.stage.placement;
    const { width, height } = this.resized();
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, width, height);
    if (!at || !this.state.now.slide) return;
    if (!this.state.now.hidden) this.drawObjects(at);
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

  private drawObjects(at: Placement): void {
    const { objects, current, opacity, fill } = this.state.now;
    const seen = {
      x0: -at.x / at.scale,
      y0: -at.y / at.scale,
      x1: (at.width - at.x) / at.scale,
      y1: (at.height - at.y) / at.scale,
    };
    for (const id of this.outlines.keys()) if (!objects.has(id)) this.outlines.delete(id);
    const level = Math.max(0, Math.floor(Math.log2(0.5 / at.scale)));
    for (const item of objects.values()) {
      const { box, paths } = this.outline(item);
      if (!box || !meet(box, seen)) continue;
      const colour = this.state.colour(item.label);
      const chosen = item.id === current;
      if ((box.x1 - box.x0 + box.y1 - box.y0) * at.scale < SMALLEST && !chosen) {
        this.plain();
        this.context.fillStyle = css(colour);
        this.context.fillRect(box.x0 * at.scale + at.x - 1, box.y0 * at.scale + at.y - 1, 2, 2);
        continue;
      }
      const path = paths.get(level) ?? traced(item, box, level);
      paths.set(level, path);
      this.over(at, box);
      if (fill) {
        this.context.fillStyle = css(colour, opacity);
        this.context.fill(path, "evenodd");
      }
      this.line(path, at, colour, chosen);
    }
  }

  private line(path: Path2D, at: Placement, colour: Colour, chosen: boolean): void {
    this.context.lineJoin = "round";
    if (chosen) {
      this.context.strokeStyle = "rgb(255 255 255 / 0.85)";
      this.context.lineWidth = 4.5 / at.scale;
      this.context.stroke(path);
    }
    this.context.strokeStyle = css(colour);
    this.context.lineWidth = (chosen ? 2.25 : 1.75) / at.scale;
    this.context.stroke(path);
  }

  /** Draw in px of level 0 about the corner of a box: far from 0 canvases are not precise. */
  private over(at: Placement, box: Bounds): void {
    const ratio = window.devicePixelRatio || 1;
    const scale = at.scale * ratio;
    const [x, y] = [(box.x0 * at.scale + at.x) * ratio, (box.y0 * at.scale + at.y) * ratio];
    this.context.setTransform(scale, 0, 0, scale, x, y);
  }

  private outline(item: Item): Outline {
    const known = this.outlines.get(item.id);
    if (known?.item === item) return known;
    const outline = { item, box: bounds(rings(item.geometry)), paths: new Map<number, Path2D>() };
    this.outlines.set(item.id, outline);
    return outline;
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
    for (const { action } of this.waiting()) {
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
      context.beginPath();
      context.arc(x, y, radius + 4, 0, 2 * Math.PI);
      context.strokeStyle = "rgb(255 255 255 / 0.8)";
      context.lineWidth = 1.5;
      context.stroke();
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

/** The path of an outline about the corner of its box, as detailed as 2^level px can show. */
function traced(item: Item, box: Bounds, level: number): Path2D {
  const path = new Path2D();
  for (const ring of rings(item.geometry)) {
    const points = level > 0 ? thinned(ring, 2 ** level) : ring;
    points.forEach(([x, y], i) => {
      if (i === 0) path.moveTo(x - box.x0, y - box.y0);
      else path.lineTo(x - box.x0, y - box.y0);
    });
    path.closePath();
  }
  return path;
}

export function css([red, green, blue]: Colour, alpha = 1): string {
  return `rgb(${red} ${green} ${blue} / ${alpha})`;
}
