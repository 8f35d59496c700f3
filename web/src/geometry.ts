// Plane geometry of outlines, and scales. No DOM.

import type { Geometry, Ring } from "./api";

export interface Bounds {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/** All rings of an outline, holes too: filled by the even-odd rule they are the object. */
export function rings(geometry: Geometry | null): Ring[] {
  if (geometry?.type === "Polygon") return geometry.coordinates;
  if (geometry?.type === "MultiPolygon") return geometry.coordinates.flat();
  return [];
}

/** Whether an outline has more than one part. */
export function inParts(geometry: Geometry | null): boolean {
  return geometry?.type === "MultiPolygon" && geometry.coordinates.length > 1;
}

/** What an outline encloses, without its holes. */
export function area(geometry: Geometry | null): number {
  const parts =
    geometry?.type === "Polygon" ? [geometry.coordinates] : geometry?.type === "MultiPolygon" ? geometry.coordinates : [];
  const enclosed = ([outer, ...holes]: Ring[]) =>
    holes.reduce((sum, hole) => sum - ringArea(hole), outer ? ringArea(outer) : 0);
  return parts.reduce((sum, part) => sum + enclosed(part), 0);
}

function ringArea(ring: Ring): number {
  const twice = ring.reduce((sum, [x, y], i) => {
    const [nextX, nextY] = ring[(i + 1) % ring.length]!;
    return sum + x * nextY - nextX * y;
  }, 0);
  return Math.abs(twice) / 2;
}

export function bounds(all: Ring[]): Bounds | null {
  const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (const ring of all) {
    for (const [x, y] of ring) {
      if (x < box.x0) box.x0 = x;
      if (x > box.x1) box.x1 = x;
      if (y < box.y0) box.y0 = y;
      if (y > box.y1) box.y1 = y;
    }
  }
  return box.x0 <= box.x1 ? box : null;
}

export function meet(a: Bounds, b: Bounds): boolean {
  return a.x0 <= b.x1 && b.x0 <= a.x1 && a.y0 <= b.y1 && b.y0 <= a.y1;
}

/** Whether a point lies inside, by the even-odd rule. */
export function inside(all: Ring[], x: number, y: number): boolean {
  let odd = false;
  for (const ring of all) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
      const [xi, yi] = ring[i]!;
      const [xj, yj] = ring[j]!;
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
  }
  return odd;
}

/** A ring without the vertices that lie nearer than `step` to the one kept before. */
export function thinned(ring: Ring, step: number): Ring {
  const kept: Ring = [];
  let [lastX, lastY] = [Infinity, Infinity];
  for (const point of ring) {
    if (Math.abs(point[0] - lastX) < step && Math.abs(point[1] - lastY) < step) continue;
    kept.push(point);
    [lastX, lastY] = point;
  }
  return kept;
}

/** The resolutions at which a click may work, um per px. */
export const WORKING = [0.25, 0.5, 1, 2, 4, 8];
const FEWEST_PX = 256; // the slide is not worked on coarser than this many px across

/** Those that suit a slide: not finer than it is, not so coarse that nothing is left of it. */
export function workable(mpp: number, longSide: number): number[] {
  const fits = WORKING.filter(
    (each) => each > mpp / Math.SQRT2 && (longSide * mpp) / each >= FEWEST_PX,
  );
  if (fits.length > 0) return fits;
  return [WORKING.find((each) => each > mpp / Math.SQRT2) ?? 8];
}

/** The nearest of `choices` to a screen pixel of `screenMpp` um; near is meant as a ratio. */
export function nearest(choices: number[], screenMpp: number): number {
  const far = (each: number) => Math.abs(Math.log(each / screenMpp));
  return choices.reduce((best, each) => (far(each) < far(best) ? each : best));
}

/** A round length in um that is at most `longest`: 1, 2 or 5 times a power of ten. */
export function roundLength(longest: number): number {
  const power = 10 ** Math.floor(Math.log10(longest));
  const step = [5, 2, 1].find((each) => each * power <= longest) ?? 1;
  return step * power;
}

export function lengthText(um: number): string {
  if (um >= 1000) return `${trim(um / 1000)} mm`;
  return um >= 1 ? `${trim(um)} µm` : `${trim(um * 1000)} nm`;
}

export function areaText(um2: number | null): string {
  if (um2 === null) return "–";
  if (um2 >= 1e4) return `${(um2 / 1e6).toPrecision(3)} mm²`;
  return `${Math.round(um2).toLocaleString("en")} µm²`;
}

export function mppText(mpp: number): string {
  return trim(Number(mpp.toPrecision(3)));
}

/** x10 is 1 um per px. */
export function magnificationText(mpp: number): string {
  const times = 10 / mpp;
  return `${times >= 10 ? times.toFixed(0) : times.toPrecision(2)}×`;
}

function trim(value: number): string {
  return String(Number(value.toFixed(3)));
}
