// Where the model looks, as the server's `session.windows` says: the first window of a new object.
// Working px: px at an object's um per px, counted from the corner of level 0. No DOM.

import type { OpenSlide } from "../api";

/** A rectangle in whole working px. */
export interface Window {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** A slide in working px, each `scale` px of level 0 along x and y. */
export interface Grid {
  width: number;
  height: number;
  scale: [number, number];
}

/** A click in px of a window, pixel-centre, and its sign. */
export type Mark = [x: number, y: number, sign: number];

const WHOLE = 1.25; // a picture up to so many windows wide is looked at as a whole
const INNER = 8; // a click nearer to a border than this part of a window asks for another window
const EDGE = 1e-3; // px of level 0: a click on the far border is meant for the last pixel

type Sized = Pick<OpenSlide, "width" | "height" | "mpp" | "unit">;

export function gridOf(slide: Sized, wanted: number): Grid {
  const mpp = Math.max(wanted, slide.mpp ?? 1);
  const [unitX, unitY] = slide.unit ?? [1, 1];
  const scale: [number, number] = [mpp / unitX, mpp / unitY];
  const across = (extent: number, by: number) => Math.max(1, Math.ceil(extent / by - 1e-6));
  return { width: across(slide.width, scale[0]), height: across(slide.height, scale[1]), scale };
}

/** The window of a first click at working px, `side` px wide. */
export function nearest(grid: Grid, [x, y]: [number, number], side: number): Window {
  const [left, width] = along(x, grid.width, side);
  const [top, height] = along(y, grid.height, side);
  return { x: left, y: top, width, height };
}

function along(place: number, extent: number, side: number): [number, number] {
  if (extent <= side * WHOLE) return [0, extent];
  const step = Math.floor(side / 2);
  const start = Math.floor((place - side / 2) / step + 0.5) * step;
  return [Math.min(Math.max(start, 0), extent - side), side];
}

/** Whether a click at working px is answered in a window that was looked at before. */
export function isInner(grid: Grid, window: Window, [x, y]: [number, number], side: number): boolean {
  const margin = side / INNER;
  const far = (from: number, size: number, place: number, extent: number) =>
    (from <= 0 || place >= from + margin) && (from + size >= extent || place < from + size - margin);
  const held = x >= window.x && x < window.x + window.width && y >= window.y && y < window.y + window.height;
  return held && far(window.x, window.width, x, grid.width) && far(window.y, window.height, y, grid.height);
}

/** A point of level 0 in working px; none outside of the slide. */
export function working(slide: Sized, grid: Grid, x: number, y: number): [number, number] | null {
  if (x < 0 || y < 0 || x > slide.width || y > slide.height) return null;
  return [Math.min(x, slide.width - EDGE) / grid.scale[0], Math.min(y, slide.height - EDGE) / grid.scale[1]];
}

/** Working px as a click in a window, kept inside of it. */
export function markIn(window: Window, [x, y]: [number, number], positive: boolean): Mark {
  const kept = (place: number, size: number) => Math.min(Math.max(place, 0), size - 1);
  return [
    kept(x - window.x - 0.5, window.width),
    kept(y - window.y - 0.5, window.height),
    positive ? 1 : -1,
  ];
}
