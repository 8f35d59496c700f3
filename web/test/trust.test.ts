import { describe, expect, it } from "vitest";
import { trust } from "../src/trust";

describe("a model's word about its masks", () => {
  it("counts over all sets", () => {
    const measured = [
      { dataset: "a", sure: 30, sure_right: 30 },
      { dataset: "b", sure: 10, sure_right: 8 },
      { dataset: "c", noc85: 3 },
    ];
    expect(trust(measured)).toBeCloseTo(0.95);
  });
  it("does not count where it was wrong too often, hardly measured, or never given", () => {
    expect(trust([{ dataset: "a", sure: 40, sure_right: 35 }])).toBeNull();
    expect(trust([{ dataset: "a", sure: 29, sure_right: 29 }])).toBeNull();
    expect(trust([{ dataset: "a", noc85: 3 }])).toBeNull();
    expect(trust([])).toBeNull();
  });
});
