// Embeddings as they come from the server: safetensors files of float16 or float32.

export interface Tensor {
  shape: number[];
  values: Float32Array<ArrayBuffer>;
}

/** [height, width] each: of a window, of its part of the model's input, and of that input. */
export interface Frame {
  shape: [number, number];
  resized: [number, number];
  padded: [number, number];
}

export interface Embedding {
  model: string;
  frame: Frame;
  maps: Record<string, Tensor>;
}

type Described = { dtype: string; shape: number[]; data_offsets: [number, number] };

export function embedding(file: ArrayBuffer): Embedding {
  const size = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, size))) as Record<string, unknown>;
  const { model, frame } = header["__metadata__"] as { model: string; frame: string };
  const maps: Record<string, Tensor> = {};
  for (const [name, described] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets } = described as Described;
    const [begin, end] = data_offsets.map((each) => 8 + size + each) as [number, number];
    maps[name] = { shape, values: numbers(dtype, file.slice(begin, end)) };
  }
  return { model, frame: JSON.parse(frame) as Frame, maps };
}

function numbers(dtype: string, bytes: ArrayBuffer): Float32Array<ArrayBuffer> {
  if (dtype === "F32") return new Float32Array(bytes);
  if (dtype !== "F16") throw new Error(`tensors of type ${dtype} are not known here`);
  halves ??= Float32Array.from({ length: 1 << 16 }, (_, bits) => half(bits));
  const values = new Float32Array(bytes.byteLength / 2);
  new Uint16Array(bytes).forEach((bits, i) => {
    values[i] = halves![bits]!;
  });
  return values;
}

let halves: Float32Array | undefined; // all there are

/** A float16 from its bits; browsers have a type for it only since 2025. */
export function half(bits: number): number {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
