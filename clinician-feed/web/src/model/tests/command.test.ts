import { describe, expect, it } from "vitest";
import { commandAnswer, limitsOf } from "../command";
import { Ward } from "../ward";
import { PATIENT, T0, hello } from "./frames";

const ENTRY = {
  quantity: 1,
  display: "Heart rate",
  unit: "/min",
  low: 50,
  high: 120,
  extremeLow: 40,
  extremeHigh: 150,
  delayS: 5,
  hysteresis: 2,
};

describe("limits as somebody types them", () => {
  it("keep delay, hysteresis and the extremes that are still outside", () => {
    expect(limitsOf(ENTRY, "55", "110,5")).toEqual({ low: 55, high: 110.5, extreme_low: 40, extreme_high: 150, delay_s: 5, hysteresis: 2 });
    expect(limitsOf(ENTRY, "30", "")).toEqual({ low: 30, extreme_high: 150, delay_s: 5, hysteresis: 2 });
    expect(limitsOf(ENTRY, "", " ")).toEqual({ extreme_low: 40, extreme_high: 150, delay_s: 5, hysteresis: 2 });
  });

  it("are refused where they are none", () => {
    expect(limitsOf(ENTRY, "fifty", "110")).toMatch(/is a number/);
    expect(limitsOf(ENTRY, "120", "110")).toMatch(/below/);
  });
});

describe("the feed's answer", () => {
  it("says what became of it", () => {
    expect(commandAnswer(true, { sequence: 1 })).toEqual({ is: "done" });
    expect(commandAnswer(false, { error: "the gateway refused: expired" })).toEqual({ is: "refused", why: "the gateway refused: expired" });
    expect(commandAnswer(false, null)).toMatchObject({ is: "refused" });
  });
});

describe("a ward", () => {
  const standing = (atMs: number, alarms: unknown[]): string =>
    JSON.stringify({
      type: "standing", patient: PATIENT, at_ms: atMs, paused_until_ms: null, alarms, score: { refused: "category_unknown" },
      category: null, oxygen: null, consciousness: null, limits: [],
    });

  it("takes each standing whole", () => {
    const ward = new Ward();
    ward.receive(hello(0), T0);
    const alarm = { number: 1, text: "** FALL", priority: "medium", technical: false, state: "active", since_ms: T0 };
    ward.receive(standing(T0 + 2, [alarm]), T0);
    expect(ward.beds.get(PATIENT)?.standing?.alarms).toHaveLength(1);
    // The gateway's clock was set back meanwhile.
    ward.receive(standing(T0 + 1, []), T0);
    expect(ward.beds.get(PATIENT)?.standing?.alarms).toEqual([]);
    const policy = '"policy":{"stale":true,"clock_unknown":false,"one_sealer":false}';
    ward.receive(`{"type":"contact","patient":"${PATIENT}","heard":false,${policy}}`, T0);
    expect(ward.beds.get(PATIENT)).toMatchObject({ heard: false, policy: { stale: true } });
    expect(ward.refused.size).toBe(0);
  });
});
