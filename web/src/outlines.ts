// The outlines of objects on a canvas: as much of each as can be seen, and no more detail than that.

import type { Colour, Item } from "./api";
import { bounds, meet, rings, thinned, type Bounds } from "./geometry";
import type { Placement } from "./stage";
import type { State, Values } from "./state";

interface Outline {
  item: Item;
  box: Bounds | null;
  vertices: number;
  paths: Map<number, Path2D>; // by level of detail; about the corner of the box
}

const SMALLEST = 2; // screen px; what is smaller is a dot
const MANY = 20_000; // vertices that are not drawn anew for every frame of a moving view

export class Outlines {
  private readonly known = new Map<number, Outline>();
  private objects: Values["objects"] | null = null;
  private previews: Values["previews"] = [];
  private vertices = 0;

  constructor(private readonly state: State) {}

  /** Whether drawing takes longer than a frame should. */
  get many(): boolean {
    this.learn();
    return this.vertices > MANY;
  }

  /** Draw what lies in view. `ratio`: px of the canvas per screen px. */
  draw(context: CanvasRenderingContext2D, at: Placement, ratio: number): void {
    this.learn();
    const { opacity, fill, previews } = this.state.now;
    const own = previews.find((each) => each.object === this.state.now.current);
    const current = own?.item.id ?? this.state.now.current;
    const seen = view(at);
    const level = Math.max(0, Math.floor(Math.log2(0.5 / at.scale)));
    const last = typeof current === "number" ? this.known.get(current) : undefined; // above the others
    const others = [...this.known.values()].filter((each) => each !== last);
    for (const { item, box, paths } of last ? [...others, last] : others) {
      if (!box || !meet(box, seen)) continue;
      const colour = this.state.colour(item.label);
      const chosen = item.id === current;
      const [x, y] = [box.x0 * at.scale + at.x, box.y0 * at.scale + at.y];
      if ((box.x1 - box.x0 + box.y1 - box.y0) * at.scale < SMALLEST && !chosen) {
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.fillStyle = css(colour);
        context.fillRect(x - 1, y - 1, 2, 2);
        continue;
      }
      const path = paths.get(level) ?? traced(item, box, level);
      paths.set(level, path);
      // about the corner of the box: far from 0 canvases are not precise
      context.setTransform(at.scale * ratio, 0, 0, at.scale * ratio, x * ratio, y * ratio);
      if (fill) {
        context.fillStyle = css(colour, opacity);
        context.fill(path, "evenodd");
      }
      line(context, path, at, colour, chosen);
    }
  }

  /** Forget what is gone or changed. */
  private learn(): void {
    const { objects, previews } = this.state.now;
    if (objects === this.objects && previews === this.previews) return;
    this.objects = objects;
    this.previews = previews;
    const before = new Map(this.known);
    this.known.clear();
    this.vertices = 0;
    const shown = new Map(objects);
    for (const { item } of previews) shown.set(item.id, item);
    for (const item of shown.values()) {
      const old = before.get(item.id);
      const outline = old?.item === item ? old : outlined(item);
      this.known.set(item.id, outline);
      this.vertices += outline.vertices;
    }
  }
}

/** The part of level 0 that is on the screen. */
export function view(at: Placement): Bounds {
  return {
    x0: -at.x / at.scale,
    y0: -at.y / at.scale,
    x1: (at.width - at.x) / at.scale,
    y1: (at.height - at.y) / at.scale,
  };
}

export function css([red, green, blue]: Colour, alpha = 1): string {
  return `rgb(${red} ${green} ${blue} / ${alpha})`;
}

function outlined(item: Item): Outline {
  const all = rings(item.geometry);
  const vertices = all.reduce((sum, ring) => sum + ring.length, 0);
  return { item, box: bounds(all), vertices, paths: new Map() };
}

function line(
  context: CanvasRenderingContext2D,
  path: Path2D,
  at: Placement,
  colour: Colour,
  chosen: boolean,
): void {
  context.lineJoin = "round";
  if (chosen) {
    context.strokeStyle = "rgb(255 255 255 / 0.85)";
    context.lineWidth = 4.5 / at.scale;
    context.stroke(path);
  }
  context.strokeStyle = css(colour);
  context.lineWidth = (chosen ? 2.25 : 1.75) / at.scale;
  context.stroke(path);
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
