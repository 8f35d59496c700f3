import { describe, expect, it } from "vitest";
import { identity } from "../src/identity";

/** What all tabs of a browser share: storage, and locks that are held until a tab is closed. */
class Browser {
  readonly storage = new Map<string, string>();
  private readonly held = new Set<string>();
  private count = 0;

  tab(own = new Map<string, string>()) {
    const mine: string[] = [];
    const request = async (name: string, options: LockOptions, run: (lock: Lock | null) => unknown) => {
      if (this.held.has(name)) {
        if (options.ifAvailable) return run(null);
        throw new DOMException("waited long", "TimeoutError");
      }
      this.held.add(name);
      mine.push(name);
      return run({ name, mode: "exclusive" });
    };
    const locks = { request } as unknown as LockManager;
    const open = (secure = true) =>
      identity(shelf(this.storage), shelf(own), secure ? locks : undefined, () => `c${++this.count}`);
    const close = () => mine.forEach((name) => this.held.delete(name));
    return { own, open, close };
  }
}

function shelf(map: Map<string, string>) {
  return { getItem: (key: string) => map.get(key) ?? null, setItem: (key: string, value: string) => void map.set(key, value) };
}

describe("a tab", () => {
  it("has its name for itself, even if it is a copy of another", async () => {
    const browser = new Browser();
    const first = browser.tab();
    const second = browser.tab();
    expect([await first.open(), await second.open()]).toEqual(["c1", "c2"]);
    const copy = browser.tab(new Map(first.own));
    expect(await copy.open()).toBe("c3");
  });

  it("gets its own name back at a reload, not the last used one", async () => {
    const browser = new Browser();
    const first = browser.tab();
    await first.open();
    const second = browser.tab();
    await second.open();
    first.close();
    second.close();
    expect(await browser.tab(first.own).open()).toBe("c1");
  });

  it("takes the last used name after the browser was closed", async () => {
    const browser = new Browser();
    const tabs = [browser.tab(), browser.tab()];
    for (const each of tabs) await each.open();
    for (const each of tabs) each.close();
    expect([await browser.tab().open(), await browser.tab().open(), await browser.tab().open()]).toEqual(["c2", "c1", "c3"]);
  });

  it("has a name without locks and without storage", async () => {
    const browser = new Browser();
    const tab = browser.tab();
    expect([await tab.open(), await tab.open(false)]).toEqual(["c1", "c1"]);
    expect(await identity(null, null, undefined, () => "x")).toBe("x");
    browser.storage.set("histoclick.clients", "{");
    expect(await browser.tab().open()).toBe("c2");
  });
});

it("twenty names are remembered", async () => {
  const browser = new Browser();
  for (let i = 0; i < 23; i++) await browser.tab().open();
  const kept = JSON.parse(browser.storage.get("histoclick.clients")!) as string[];
  expect(kept).toHaveLength(20);
  expect(kept[0]).toBe("c23");
});
