import { describe, expect, it } from "vitest";
import { BURSTS, isDue, sounding } from "../tone";
import { Ward } from "../ward";
import { OTHER, PATIENT, T0, hello } from "./frames";

function ward(...standings: [string, string, string, number | null][]): Ward {
  const made = new Ward();
  made.receive(hello(0, T0, [PATIENT, OTHER]), T0);
  for (const [patient, priority, state, paused] of standings) {
    const alarm = { number: 1, text: "x", priority, technical: false, state, since_ms: T0 };
    made.receive(
      JSON.stringify({
        type: "standing", patient, at_ms: T0, paused_until_ms: paused, alarms: [alarm], score: { refused: "pregnant" },
        category: null, oxygen: null, consciousness: null, limits: [],
      }),
      T0,
    );
  }
  return made;
}

const loudest = (...standings: [string, string, string, number | null][]): string | null => sounding(ward(...standings).beds.values(), T0);

describe("tones", () => {
  it("are the most urgent unacknowledged alarm's, of beds that are not paused", () => {
    expect(loudest()).toBeNull();
    expect(loudest([PATIENT, "low", "active", null], [OTHER, "medium", "latched", null])).toBe("medium");
    expect(loudest([PATIENT, "high", "acknowledged", null])).toBeNull();
    expect(loudest([PATIENT, "high", "active", T0 + 1], [OTHER, "low", "active", null])).toBe("low");
    expect(loudest([PATIENT, "high", "active", T0])).toBe("high");
  });

  it("come at once when it becomes more urgent, and otherwise in their time", () => {
    expect(isDue(null, null, T0)).toBe(false);
    expect(isDue("low", null, T0)).toBe(true);
    expect(isDue("medium", { priority: "medium", atMs: T0 }, T0 + 14_999)).toBe(false);
    expect(isDue("medium", { priority: "medium", atMs: T0 }, T0 + 15_000)).toBe(true);
    expect(isDue("high", { priority: "medium", atMs: T0 }, T0 + 1)).toBe(true);
    expect(isDue("low", { priority: "high", atMs: T0 }, T0 + 10_000)).toBe(false);
  });

  it("have as many pulses as the standard says, within the time to the next burst", () => {
    expect([BURSTS.high.pulses.length, BURSTS.medium.pulses.length, BURSTS.low.pulses.length]).toEqual([10, 3, 2]);
    for (const burst of Object.values(BURSTS)) {
      const last = burst.pulses[burst.pulses.length - 1];
      expect(last !== undefined && last.atS + last.lengthS < burst.everyS).toBe(true);
      expect(burst.hertz >= 150 && burst.hertz <= 1000).toBe(true);
      for (const [i, pulse] of burst.pulses.entries()) {
        const next = burst.pulses[i + 1];
        if (next !== undefined) expect(pulse.atS + pulse.lengthS).toBeLessThan(next.atS);
      }
    }
  });
});
