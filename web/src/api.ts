// What the server says, and how to ask. Coordinates are px of level 0, pixel-corner.

export type Point = [number, number];
export type Colour = [number, number, number];
export type Ring = Point[];
export type Geometry =
  | { type: "Polygon"; coordinates: Ring[] }
  | { type: "MultiPolygon"; coordinates: Ring[][] }
  | { type: "Point" | "MultiPoint" | "LineString" | "MultiLineString"; coordinates: unknown };

export interface Measured {
  dataset: string;
  patches?: number | null;
  noc80?: number | null;
  noc85?: number | null;
  noc90?: number | null;
  sure?: number | null; // patches on which an estimated IoU reached 0.9
  sure_right?: number | null; // those of them whose IoU had reached 0.85 when it first did
  [more: string]: unknown;
}

export interface Info {
  version: string;
  model: {
    id: string;
    summary: string;
    licence: string;
    measured: Measured[];
    untrained: boolean;
    window_px: number;
    decoder: string | null; // the model's hash, if browsers can have its decoder
  };
  user: string;
  formats: { name: string; title: string; suffix: string }[];
}

export interface Slide {
  id: string;
  name: string;
  folder: string;
  width: number;
  height: number;
  mpp: number | null;
  objects: number;
  problem: string | null;
}

export interface OpenSlide extends Slide {
  bounds: [number, number, number, number];
  unit: [number, number] | null; // um per px along x and y
  tile_size: number;
  overlap: number;
  max_level: number;
  background: string | null;
  notes?: string[];
}

export interface Click {
  x: number;
  y: number;
  positive: boolean;
}

export interface Item {
  id: number;
  label: string;
  name: string;
  mpp: number | null; // none yet for an object from a file
  version: number;
  clicks: Click[];
  box: [number, number, number, number] | null;
  geometry: Geometry | null;
  area_um2: number | null;
  quality: number | null;
  window: [number, number, number, number] | null;
}

export interface Class {
  name: string;
  colour: Colour;
  key: string;
}

/** What changed; `seq` counts the events of the slide. No `classes`: they are as they were. */
export interface Change {
  seq: number;
  classes: Class[];
  objects: Item[];
  removed: number[];
  can_undo: boolean;
  can_redo: boolean;
  seconds?: { encode?: number | null; predict?: number | null } | null;
  model?: string | null; // that was asked
}

/** `object`: an id, `null` for a new one, or the id of the event that makes it. */
export type Target = number | string | null;

export type Action =
  | { kind: "click"; object: Target; x: number; y: number; positive: boolean; mpp: number; label: string }
  | { kind: "box"; object: Target; x0: number; y0: number; x1: number; y1: number; mpp: number; label: string }
  | { kind: "stroke"; object: Target; points: Point[]; radius: number; erase: boolean; mpp: number; label: string }
  | { kind: "label"; object: Target; label: string }
  | { kind: "labels"; labels: [string, string][] }
  | { kind: "name"; object: Target; name: string }
  | { kind: "tidy"; object: Target }
  | { kind: "delete"; object: Target }
  | { kind: "classes"; classes: Class[] }
  | { kind: "undo" }
  | { kind: "redo" };

/** The server said no, in one sentence; `status` 0: it could not be reached. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    sentence: string,
  ) {
    super(sentence);
  }

  /** Whether asking again later may help. */
  get passes(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  /** The server wants a token first. */
  get barred(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

export class Api {
  /** Who works here, for the log; "" leaves it to the server. */
  user = "";

  /** `client`: the name of this tab, by which the server knows whose action to undo. */
  constructor(
    readonly client: string,
    private readonly root = "api",
  ) {}

  info = () => this.json<Info>("info");
  slides = () => this.json<Slide[]>("slides");
  slide = (id: string) => this.json<OpenSlide>(`slides/${enc(id)}`);
  annotations = (id: string, after: number) =>
    this.json<Change>(`slides/${enc(id)}/annotations?after=${after}`);

  thumbnail = (id: string) => `${this.root}/slides/${enc(id)}/thumbnail.jpeg`;
  tile = (id: string, level: number, x: number, y: number) =>
    `${this.root}/slides/${enc(id)}/slide_files/${level}/${x}_${y}.jpeg`;

  /** Do something, once however often it is asked. The answer tells all that changed after `after`. */
  event(slide: string, id: string, action: Action, client: string, after: number | null): Promise<Change> {
    const since = after === null ? "" : `?after=${after}`;
    return this.post<Change>(`slides/${enc(slide)}/events${since}`, { ...action, id }, client);
  }

  /** Ask that a view be encoded before somebody clicks in it. */
  ahead(slide: string, view: { x: number; y: number; width: number; height: number; mpp: number }) {
    return this.post<{ ready: boolean }>(`slides/${enc(slide)}/ahead`, view);
  }

  /** Take objects from a file of any format that the server knows. */
  import(slide: string, file: File): Promise<Change & { notes: string[] }> {
    const form = new FormData();
    form.append("file", file);
    return this.json(`slides/${enc(slide)}/import`, { method: "POST", body: form });
  }

  /** A file in one of the formats of `info`, its name, and what the format could not hold. */
  async export(slide: string, format: string): Promise<{ file: Blob; name: string; notes: string[] }> {
    const path = `slides/${enc(slide)}/export?format=${enc(format)}`;
    const reply = await this.ask(path, {}, this.client);
    const notes = reply.headers.get("X-Notes");
    return {
      file: await reply.blob(),
      name: attachment(reply.headers.get("Content-Disposition")) ?? `annotations.${format}`,
      notes: notes ? (JSON.parse(decodeURIComponent(notes)) as string[]) : [],
    };
  }

  private post<T>(path: string, body: unknown, client = this.client): Promise<T> {
    const headers = { "Content-Type": "application/json" };
    return this.json(path, { method: "POST", headers, body: JSON.stringify(body) }, client);
  }

  private async json<T>(path: string, request: RequestInit = {}, client = this.client): Promise<T> {
    const reply = await this.ask(path, request, client);
    return (await reply.json()) as T;
  }

  private async ask(path: string, request: RequestInit, client: string): Promise<Response> {
    let reply: Response;
    try {
      const who = this.user && { "X-User": encodeURIComponent(this.user) };
      const headers = { ...request.headers, "X-Client": client, ...who };
      reply = await fetch(`${this.root}/${path}`, { cache: "no-store", ...request, headers });
    } catch {
      throw new Refusal(0, "The server cannot be reached.");
    }
    if (!reply.ok) throw new Refusal(reply.status, await sentence(reply));
    return reply;
  }
}

const enc = encodeURIComponent;

async function sentence(reply: Response): Promise<string> {
  try {
    const { detail } = (await reply.json()) as { detail?: unknown };
    if (typeof detail === "string") return begun(detail);
    if (Array.isArray(detail)) return begun(detail.map((each: { msg?: string }) => each.msg).join("; "));
  } catch {
    // not our server's words: say what HTTP says
  }
  return `The server answered ${reply.status} ${reply.statusText}`.trim();
}

/** With a capital letter, as sentences begin. */
function begun(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function attachment(header: string | null): string | null {
  const long = /filename\*=(?:UTF-8|utf-8)''([^;]+)/.exec(header ?? "")?.[1];
  if (long) return decodeURIComponent(long);
  return /filename="?([^";]+)"?/.exec(header ?? "")?.[1] ?? null;
}
