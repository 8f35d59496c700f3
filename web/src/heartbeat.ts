// What happens by itself: the list of slides, what others do, and encoding ahead of the user.

import type { Actions } from "./actions";
import { Refusal, type Api } from "./api";
import type { State } from "./state";

const POLL = 2000; // ms
const REST = 300; // ms that a view rests until it is encoded
const AGAIN = 700; // ms until we ask again whether it is
const TRIES = 120;

export class Heartbeat {
  private beats = 0;
  private rest: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly state: State,
    private readonly api: Api,
    private readonly actions: Actions,
  ) {}

  /** Resolves when the slides are known. */
  async begin(): Promise<void> {
    while (!(await this.greet())) await pause(POLL);
    setInterval(() => void this.beat(), POLL);
    document.addEventListener("visibilitychange", () => void this.beat());
    addEventListener("online", () => this.actions.outbox.retry());
    this.state.watch(["view", "slide", "working", "current"], () => this.moved());
  }

  private async greet(): Promise<boolean> {
    try {
      const [info, slides] = await Promise.all([this.api.info(), this.api.slides()]);
      this.state.set({ info, slides });
      this.online();
      this.actions.outbox.serve(slides.map((each) => each.id));
      return true;
    } catch (error) {
      this.offline(error);
      return false;
    }
  }

  private async beat(): Promise<void> {
    if (document.hidden) return;
    try {
      const { slide, sending } = this.state.now;
      if (sending.phase === "sending") return; // its reply says what is new
      if (slide) await this.actions.refresh();
      if (!slide || this.beats++ % 5 === 0) {
        const [info, slides] = await Promise.all([this.api.info(), this.api.slides()]);
        this.state.set({ info, slides }); // the server may be another one by now
        this.actions.outbox.serve(slides.map((each) => each.id));
      }
      this.online();
    } catch (error) {
      this.offline(error);
    }
  }

  private online(): void {
    const { sending } = this.state.now;
    if (sending.phase !== "waiting") return;
    if (this.actions.outbox.phase === "waiting") this.actions.outbox.retry();
    else this.state.set({ sending: { ...sending, phase: "idle", reason: "" } });
  }

  private offline(error: unknown): void {
    const { sending } = this.state.now;
    this.beats = 0;
    if (sending.phase === "sending") return;
    const reason = error instanceof Refusal ? error.message : String(error);
    if (error instanceof Refusal && !error.passes && !error.barred) return; // about one slide only
    this.state.set({ sending: { ...sending, phase: "waiting", reason } });
  }

  private moved(): void {
    clearTimeout(this.rest);
    this.rest = setTimeout(() => void this.ahead(TRIES), REST);
  }

  private async ahead(tries: number): Promise<void> {
    const { slide, view } = this.state.now;
    const mpp = this.state.mpp;
    if (!slide || !view || mpp === null || document.hidden) return;
    const x = Math.max(0, view.x0);
    const y = Math.max(0, view.y0);
    const width = Math.min(slide.width, view.x1) - x;
    const height = Math.min(slide.height, view.y1) - y;
    if (width <= 0 || height <= 0) return;
    let ready: boolean | null = null;
    try {
      ready = (await this.api.ahead(slide.id, { x, y, width, height, mpp })).ready;
    } catch {
      // it is only a courtesy
    }
    if (this.state.now.view !== view) return; // moved on: another question is on its way
    this.state.set({ ready });
    if (ready === false && tries > 0) this.rest = setTimeout(() => void this.ahead(tries - 1), AGAIN);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
