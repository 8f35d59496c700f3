// Pictures of numbers: resizing as OpenCV does it, and the outline of what is above 0. No DOM.

import type { Ring } from "../api";

export interface Picture {
  width: number;
  height: number;
  values: Float32Array<ArrayBuffer>;
}

/** The top left part. */
export function cropped(picture: Picture, width: number, height: number): Picture {
  if (width === picture.width && height === picture.height) return picture;
  const values = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    values.set(picture.values.subarray(y * picture.width, y * picture.width + width), y * width);
  }
  return { width, height, values };
}

/** Linear between the centres of pixels; beyond the outer ones as they are. */
export function resized(picture: Picture, width: number, height: number): Picture {
  if (width === picture.width && height === picture.height) return picture;
  const { values: from } = picture;
  const [columns, rows] = [steps(picture.width, width), steps(picture.height, height)];
  const values = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const { low, high, share } = rows[y]!;
    const [above, below] = [low * picture.width, high * picture.width];
    for (let x = 0; x < width; x++) {
      const at = columns[x]!;
      const upper = from[above + at.low]! * (1 - at.share) + from[above + at.high]! * at.share;
      const lower = from[below + at.low]! * (1 - at.share) + from[below + at.high]! * at.share;
      values[y * width + x] = upper * (1 - share) + lower * share;
    }
  }
  return { width, height, values };
}

function steps(from: number, to: number): { low: number; high: number; share: number }[] {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    const low = Math.floor(place);
    return { low, high: Math.min(low + 1, from - 1), share: place - low };
  });
}

const ALONG = [0, 1, 2, 3]; // right, down, left, up

/** The exact outlines of the pixels above 0, on their corners: filled by the even-odd rule they are
 * these pixels again. */
export function traced({ width, height, values }: Picture): Ring[] {
  const across = width + 1; // corners in a row
  const leaving = new Uint8Array(across * (height + 1)); // of a corner: a bit for each direction
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (!(values[at]! > 0)) continue; // around a pixel clockwise, where its neighbour is off
      const corner = y * across + x;
      if (y === 0 || !(values[at - width]! > 0)) leaving[corner]! |= 1;
      if (x === width - 1 || !(values[at + 1]! > 0)) leaving[corner + 1]! |= 2;
      if (y === height - 1 || !(values[at + width]! > 0)) leaving[corner + across + 1]! |= 4;
      if (x === 0 || !(values[at - 1]! > 0)) leaving[corner + across]! |= 8;
    }
  }
  const rings: Ring[] = [];
  for (let start = 0; start < leaving.length; start++) {
    while (leaving[start]) rings.push(follow(start));
  }
  return rings;

  function follow(start: number): Ring {
    const ring: Ring = [];
    let at = start;
    let before = -1;
    do {
      // right before straight on before left, so that pixels that share a corner only stay apart
      const turns = before < 0 ? ALONG : [before + 1, before, before + 3].map((each) => each & 3);
      const next = turns.find((each) => leaving[at]! & (1 << each))!;
      leaving[at]! &= ~(1 << next);
      if (next !== before) ring.push([at % across, Math.floor(at / across)]);
      before = next;
      at += [1, across, -1, -across][next]!;
    } while (at !== start);
    return ring;
  }
}
