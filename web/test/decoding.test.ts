import { describe, expect, it } from "vitest";
import { gridOf, isInner, markIn, nearest, working, type Mark } from "../src/decoding/lattice";
import { cropped, resized, traced, type Picture } from "../src/decoding/pixels";
import { comply, settle, show, type Rules } from "../src/decoding/rules";
import { embedding, half } from "../src/decoding/tensors";
import { area, inside } from "../src/geometry";

const RULES: Rules = { comply: false, bump_px: 6, lower: false, sure: null };

function picture(...rows: number[][]): Picture {
  return { width: rows[0]!.length, height: rows.length, values: new Float32Array(rows.flat()) };
}

/** Pixels that are on or off by chance, the same ones for a seed. */
function speckled(width: number, height: number, seed: number): Picture {
  let state = seed;
  const draw = () => (state = (state * 48271) % 2147483647) / 2147483647 - 0.5;
  return { width, height, values: new Float32Array(width * height).map(draw) };
}

describe("where the model looks", () => {
  const slide = { width: 40000, height: 1000, mpp: 0.25, unit: [0.25, 0.5] as [number, number] };

  it("is on a lattice of half windows, at the um per px of both directions", () => {
    const grid = gridOf(slide, 1);
    expect(grid).toEqual({ width: 10000, height: 500, scale: [4, 2] });
    expect(nearest(grid, [1000, 250], 448)).toEqual({ x: 672, y: 0, width: 448, height: 500 });
    expect(nearest(grid, [0, 0], 448).x).toBe(0);
    expect(nearest(grid, [9999, 0], 448).x).toBe(10000 - 448);
    expect(gridOf(slide, 0.01).scale).toEqual([1, 0.5]); // never finer than the slide
    expect(gridOf({ ...slide, mpp: null, unit: null }, 2).scale).toEqual([2, 2]);
  });

  it("stays for clicks that are not near its border, but for that of the slide", () => {
    const grid = gridOf(slide, 1);
    const window = { x: 672, y: 0, width: 448, height: 500 };
    expect(isInner(grid, window, [700, 250], 448)).toBe(false);
    expect(isInner(grid, window, [728, 1], 448)).toBe(true);
    expect(isInner(grid, window, [672 + 448 - 57, 499], 448)).toBe(true);
    expect(isInner(grid, window, [672 + 448 - 56, 250], 448)).toBe(false);
  });

  it("takes no click beyond the slide, and one on its border for the last pixel", () => {
    const grid = gridOf(slide, 1);
    expect(working(slide, grid, -1, 0)).toBeNull();
    expect(working(slide, grid, 0, 1001)).toBeNull();
    const window = { x: 10000 - 448, y: 0, width: 448, height: 500 };
    expect(markIn(window, working(slide, grid, 40000, 1000)!, false)).toEqual([447, 499, -1]);
  });
});

describe("outlines", () => {
  it.each([1, 2, 3])("enclose exactly the pixels above 0 (%i)", (seed) => {
    const speckles = speckled(23, 17, seed);
    const rings = traced(speckles);
    speckles.values.forEach((value, i) => {
      const [x, y] = [i % 23, Math.floor(i / 23)];
      expect(inside(rings, x + 0.5, y + 0.5)).toBe(value > 0);
    });
  });

  it("have corners only where they turn, and pixels that touch at a corner stay apart", () => {
    expect(traced(picture([1, 1], [1, 1]))).toEqual([[[0, 0], [2, 0], [2, 2], [0, 2]]]);
    expect(traced(picture([1, -1], [-1, 1])).length).toBe(2);
    const [outer, hole] = traced(picture([1, 1, 1], [1, 0, 1], [1, 1, 1]));
    expect(area({ type: "Polygon", coordinates: [outer!, hole!] })).toBe(8);
    expect(traced(picture([0, -1]))).toEqual([]);
  });
});

describe("resizing", () => {
  it("is linear between the centres of pixels", () => {
    expect([...resized(picture([0, 4]), 4, 1).values]).toEqual([0, 1, 3, 4]);
    expect([...resized(picture([0], [4]), 1, 4).values]).toEqual([0, 1, 3, 4]);
    expect([...resized(picture([0, 1, 2, 3]), 2, 1).values]).toEqual([0.5, 2.5]);
    expect([...cropped(picture([1, 2, 3], [4, 5, 6]), 2, 1).values]).toEqual([1, 2]);
  });
});

describe("rules", () => {
  it("let a negative click take away only, and nothing be surer than the model takes it for", () => {
    const [now, before] = [picture([5, -9, 3]), picture([2, -1, 4])];
    const clicks: Mark[] = [[0, 0, -1]];
    expect([...settle(now, before, clicks, { ...RULES, lower: true, sure: 4 }).values]).toEqual([2, -4, 3]);
    expect([...settle(now, before, [[0, 0, 1]], { ...RULES, lower: true }).values]).toEqual([5, -9, 3]);
    expect([...settle(now, null, clicks, { ...RULES, lower: true }).values]).toEqual([5, -9, 3]);
  });

  it("make clicked pixels obey, and leave those of other clicks alone", () => {
    const flat = { width: 41, height: 1, values: new Float32Array(41).fill(-1) };
    const { values } = comply(flat, [[20, 0, 1], [24, 0, -1]], 6);
    expect(values[20]).toBe(1);
    expect(values[21]).toBeGreaterThan(-1);
    expect(values[24]).toBe(-1);
    expect(values[0]).toBe(-1);
    expect([...comply(flat, [[3.5, 0, 1], [4.5, 0, 1]], 0.1).values].map((each) => each > 0).indexOf(true)).toBe(4);
    expect(comply(flat, [[7, 0, 1], [7, 0, -1]], 6).values).toEqual(flat.values); // the last one counts
  });

  it("show the part of the input that is no padding", () => {
    const settled = { width: 2, height: 2, values: new Float32Array([1, 2, 3, 4]) };
    const frame = { shape: [1, 2] as [number, number], resized: [2, 4] as [number, number], padded: [4, 4] as [number, number] };
    const shown = show(settled, frame, [[0, 0, 1]], 2, RULES);
    expect([shown.width, shown.height]).toEqual([2, 1]);
    expect([...shown.values]).toEqual([1.375, 2.125].map((each) => expect.closeTo(each, 5)));
  });
});

describe("embeddings", () => {
  it("come as float16 or float32, with the model they are of", () => {
    const frame = { shape: [1, 2], resized: [1, 2], padded: [1, 2] };
    const header = JSON.stringify({
      __metadata__: { model: "ab", frame: JSON.stringify(frame) },
      a: { dtype: "F16", shape: [1, 2], data_offsets: [0, 4] },
      b: { dtype: "F32", shape: [1], data_offsets: [4, 8] },
    });
    const file = new Uint8Array(8 + header.length + 8);
    new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
    file.set(new TextEncoder().encode(header), 8);
    file.set(new Uint8Array(new Uint16Array([0x3c00, 0xc100]).buffer), 8 + header.length);
    file.set(new Uint8Array(new Float32Array([1e9]).buffer), 12 + header.length);
    const found = embedding(file.buffer);
    expect([found.model, found.frame]).toEqual(["ab", frame]);
    expect([...found.maps["a"]!.values]).toEqual([1, -2.5]);
    expect([...found.maps["b"]!.values]).toEqual([1e9]);
  });

  it("are read to the bit", () => {
    expect([0x0001, 0x03ff, 0x0400, 0x7bff, 0xfc00, 0x8000].map(half)).toEqual(
      [2 ** -24, 1023 * 2 ** -24, 2 ** -14, 65504, -Infinity, -0],
    );
    expect(half(0x7e00)).toBeNaN();
  });
});
