// Answers clicks in the browser, in a thread of its own: the decoder of the model that the server
// runs, on embeddings of that very model. Loaded only when somebody wants it.

import * as ort from "onnxruntime-web/wasm";
import type { Ring } from "../api";
import type { Mark } from "./lattice";
import { traced, type Picture } from "./pixels";
import { settle, show, type Rules } from "./rules";
import { embedding, type Embedding } from "./tensors";

/** A window on a slide: its corner, working px at `mpp`. */
export interface Place {
  slide: string;
  mpp: number;
  x: number;
  y: number;
}

export type Ask =
  | { kind: "begin"; root: string }
  | { kind: "look"; place: Place }
  /** all clicks on an object in a window; `after`: the question whose answer it goes on from */
  | { kind: "click"; id: string; place: Place; clicks: Mark[]; after: string | null };

/** `name`: of the model. `rings`: in px of the window, around so many `pixels`. */
export type Answer =
  | { id: string; name: string; rings: Ring[]; pixels: number; ms: number }
  | { problem: string; stale: boolean };

interface Decoder extends Rules {
  model: string;
  name: string;
  sha256: string;
  stride: number;
  maps: string[];
}

interface Opened {
  decoder: Decoder;
  session: ort.InferenceSession;
}

/** What the server has is of another model than what is here. */
class Stale extends Error {}

const SEEN = 6; // embeddings that are kept, some MB each
const SAID = 8; // answers that one can go on from

ort.env.wasm.numThreads = 1; // more take headers that keep other pages' windows away

let root = "";
let opened: Promise<Opened> | null = null;
let work: Promise<void> = Promise.resolve();
const seen = new Map<string, Promise<Embedding>>(); // by address
const said = new Map<string, Picture>(); // settled logits by question

addEventListener("message", ({ data }: MessageEvent<Ask>) => {
  if (data.kind === "begin") root = data.root;
  else work = work.then(() => answer(data)).catch(failed); // one after the other
});

async function answer(ask: Exclude<Ask, { kind: "begin" }>): Promise<void> {
  const { decoder, session } = await (opened ??= open());
  const looked = await look(ask.place, decoder);
  if (ask.kind === "look") return;
  const before = ask.after === null ? null : said.get(ask.after);
  if (before === undefined) throw new Error("the answer to go on from is not here any more");
  const begin = performance.now();
  const { frame } = looked;
  const inner = ask.clicks.map(([x, y, sign]): Mark => {
    const [down, across] = frame.shape.map((each, i) => each / frame.resized[i]!) as [number, number];
    return [(x + 0.5) / across - 0.5, (y + 0.5) / down - 0.5, sign];
  });
  const logits = await run(decoder, session, looked, inner, before);
  const settled = settle(logits, before, inner, decoder);
  keep(said, ask.id, settled, SAID);
  const shown = show(settled, frame, ask.clicks, decoder.stride, decoder);
  const rings = traced(shown);
  const pixels = shown.values.reduce((sum, value) => sum + Number(value > 0), 0);
  tell({ id: ask.id, name: decoder.name, rings, pixels, ms: performance.now() - begin });
}

async function run(
  { stride }: Decoder,
  session: ort.InferenceSession,
  { frame, maps }: Embedding,
  clicks: Mark[],
  before: Picture | null,
): Promise<Picture> {
  const [height, width] = frame.padded.map((each) => each / stride) as [number, number];
  const tensor = (values: Float32Array<ArrayBuffer>, shape: number[]) => new ort.Tensor("float32", values, shape);
  const scene = Object.entries(maps).map(([name, { shape, values }]) => [name, tensor(values, shape)] as const);
  const { logits } = await session.run({
    ...Object.fromEntries(scene),
    clicks: tensor(new Float32Array(clicks.flat()), [1, clicks.length, 3]),
    before: tensor(before?.values ?? new Float32Array(height * width), [1, 1, height, width]),
    begun: tensor(new Float32Array([before ? 1 : 0]), [1]),
  });
  return { width, height, values: (logits!.data as Float32Array<ArrayBuffer>).slice() };
}

async function open(): Promise<Opened> {
  const decoder = (await (await got("decoder", "no-store")).json()) as Decoder;
  const graph = await (await got(`decoder/${decoder.sha256}`, "default")).arrayBuffer();
  // Only https and localhost have it. Elsewhere the page itself could be changed on its way.
  if (globalThis.crypto?.subtle && (await sha256(graph)) !== decoder.sha256) {
    throw new Error("the decoder that came is not the one that was asked for");
  }
  return { decoder, session: await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] }) };
}

function look(place: Place, decoder: Decoder): Promise<Embedding> {
  const { slide, mpp, x, y } = place;
  const address = `slides/${slide}/embeddings/${decoder.model}?mpp=${mpp}&x=${x}&y=${y}`;
  const known = seen.get(address) ?? fetched(address, decoder);
  keep(seen, address, known, SEEN);
  known.catch(() => seen.delete(address));
  return known;
}

async function fetched(address: string, decoder: Decoder): Promise<Embedding> {
  const found = embedding(await (await got(address, "default")).arrayBuffer());
  const fits = decoder.maps.every((each) => each in found.maps) && decoder.maps.length === Object.keys(found.maps).length;
  if (found.model !== decoder.model || !fits) throw new Stale("the embedding that came is of another model");
  return found;
}

async function got(address: string, cache: RequestCache): Promise<Response> {
  const reply = await fetch(`${root}${address}`, { cache });
  if (reply.ok) return reply;
  const problem = `${address.split("?")[0]}: ${reply.status}`;
  const other = reply.status === 409 || (reply.status === 404 && address.startsWith("decoder"));
  throw other ? new Stale(problem) : new Error(problem);
}

function failed(error: unknown): void {
  const stale = error instanceof Stale;
  if (stale) {
    seen.clear();
    said.clear();
  }
  if (stale || error instanceof TypeError) opened = null; // asked for again
  tell({ problem: String(error), stale });
}

function keep<T>(all: Map<string, T>, key: string, value: T, most: number): void {
  all.delete(key);
  all.set(key, value);
  if (all.size > most) all.delete(all.keys().next().value!);
}

async function sha256(bytes: ArrayBuffer): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((each) => each.toString(16).padStart(2, "0")).join("");
}

function tell(answer: Answer): void {
  postMessage(answer);
}
