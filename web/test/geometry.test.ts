import { describe, expect, it } from "vitest";
import type { Ring } from "../src/api";
import { areaText, bounds, inside, lengthText, magnificationText, meet, mppText, nearest, rings, roundLength, thinned, workable } from "../src/geometry";

const SQUARE: Ring = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]];
const HOLE: Ring = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]];

describe("outlines", () => {
  it("are all rings of all parts", () => {
    expect(rings({ type: "Polygon", coordinates: [SQUARE, HOLE] })).toHaveLength(2);
    expect(rings({ type: "MultiPolygon", coordinates: [[SQUARE], [HOLE]] })).toHaveLength(2);
    expect(rings({ type: "Point", coordinates: [1, 2] })).toEqual([]);
    expect(rings(null)).toEqual([]);
  });

  it("hold what is inside, but not their holes", () => {
    expect(inside([SQUARE, HOLE], 1, 1)).toBe(true);
    expect(inside([SQUARE, HOLE], 5, 5)).toBe(false);
    expect(inside([SQUARE, HOLE], 11, 5)).toBe(false);
  });

  it("have bounds that meet or do not", () => {
    expect(bounds([SQUARE])).toEqual({ x0: 0, y0: 0, x1: 10, y1: 10 });
    expect(bounds([])).toBeNull();
    expect(meet({ x0: 0, y0: 0, x1: 1, y1: 1 }, { x0: 1, y0: 0, x1: 2, y1: 1 })).toBe(true);
    expect(meet({ x0: 0, y0: 0, x1: 1, y1: 1 }, { x0: 0, y0: 2, x1: 1, y1: 3 })).toBe(false);
  });

  it("are thinned to what can be seen, never moved", () => {
    const fine: Ring = Array.from({ length: 1000 }, (_, i) => [Math.cos(i / 159) * 100, Math.sin(i / 159) * 100]);
    const coarse = thinned(fine, 5);
    expect(coarse.length).toBeLessThan(fine.length / 3);
    expect(fine).toEqual(expect.arrayContaining(coarse));
    expect(thinned(fine, 0)).toEqual(fine);
  });
});

describe("scales", () => {
  it("suit the slide", () => {
    expect(workable(0.25, 30000)).toEqual([0.25, 0.5, 1, 2, 4, 8]);
    expect(workable(0.2425, 30000)[0]).toBe(0.25);
    expect(workable(0.499, 3000)).toEqual([0.5, 1, 2, 4]);
    expect(workable(0.499, 50)).toEqual([0.5]);
    expect(workable(20, 5000)).toEqual([8]);
  });

  it("are near as ratios", () => {
    expect(nearest([1, 2, 4], 2.7)).toBe(2);
    expect(nearest([1, 2, 4], 2.9)).toBe(4);
  });

  it("are written plainly", () => {
    expect([1, 7, 49, 50, 0.3].map(roundLength)).toEqual([1, 5, 20, 50, 0.2]);
    expect([0.5, 20, 1500].map(lengthText)).toEqual(["500 nm", "20 µm", "1.5 mm"]);
    expect([0.25, 1, 8].map(magnificationText)).toEqual(["40×", "10×", "1.3×"]);
    expect(mppText(1.91978)).toBe("1.92");
    expect([null, 1234, 110836].map(areaText)).toEqual(["–", "1,234 µm²", "0.111 mm²"]);
  });
});
