// A picture of all outlines, a little larger than the view, that moves along with it while it moves.

import { Outlines } from "./outlines";
import type { Placement } from "./stage";
import type { Key, State } from "./state";

const MARGIN = 0.25; // of the view, on each side
const STRETCH = 1.6; // a picture may be this much too small or too large for a moment
const SHOWN: readonly Key[] = ["objects", "classes", "current", "opacity", "fill", "slide", "previews"];

export class Sheet {
  private readonly canvas = document.createElement("canvas");
  private readonly context = this.canvas.getContext("2d")!;
  private at: Placement | null = null;
  private shown: unknown[] = [];

  constructor(
    private readonly state: State,
    private readonly outlines: Outlines,
  ) {}

  /** Put the picture on a canvas. `exact`: the view rests, so no other view's picture will do. */
  draw(target: CanvasRenderingContext2D, at: Placement, ratio: number, exact: boolean): void {
    if (!this.fits(at, exact)) this.render(at, ratio);
    const by = at.scale / this.at!.scale;
    const left = at.x - this.at!.x * by;
    const top = at.y - this.at!.y * by;
    target.setTransform(ratio, 0, 0, ratio, 0, 0);
    target.drawImage(this.canvas, left, top, this.at!.width * by, this.at!.height * by);
  }

  private fits(at: Placement, exact: boolean): boolean {
    const { now } = this.state;
    const had = this.at;
    if (!had || SHOWN.some((key, i) => now[key] !== this.shown[i])) return false;
    const by = at.scale / had.scale;
    if (exact) return by === 1 && this.covers(at, had, 1);
    return by < STRETCH && by > 1 / STRETCH && this.covers(at, had, by);
  }

  private covers(at: Placement, had: Placement, by: number): boolean {
    const [left, top] = [at.x - had.x * by, at.y - had.y * by];
    return left <= 0 && top <= 0 && left + had.width * by >= at.width && top + had.height * by >= at.height;
  }

  private render(at: Placement, ratio: number): void {
    const [more, below] = [Math.ceil(at.width * MARGIN), Math.ceil(at.height * MARGIN)];
    const width = at.width + 2 * more;
    const height = at.height + 2 * below;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.at = { scale: at.scale, x: at.x + more, y: at.y + below, width, height };
    this.shown = SHOWN.map((key) => this.state.now[key]);
    this.outlines.draw(this.context, this.at, ratio);
  }
}
