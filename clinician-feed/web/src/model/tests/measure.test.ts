import { describe, expect, it } from "vitest";
import { chooseGain } from "../gain";
import { ClockOffset, DELAYS_MAX, Delays } from "../latency";
import { NumericSeries, measuredAtMs, printAge } from "../numeric";
import type { Code } from "../protocol";
import { present, printUnit, printValue } from "../quantity";
import { CSS_PX_PER_MM } from "../sweep";
import { TREND_BINS, TREND_BIN_MS, Trend, trendSpanMs } from "../trend";
import { T0 } from "./frames";

const HR: Code = { name: "heart-rate", loinc: "8867-4", mdc: 147842, display: "Heart rate", unit: "/min" };
const WEIGHT: Code = { name: "weight", loinc: "29463-7", mdc: 188736, display: "Weight", unit: "kg" };

describe("ClockOffset", () => {
  it("takes the message that came fastest", () => {
    const clock = new ClockOffset();
    // The feed is 5 s ahead; messages take 40, 3 and 200 ms.
    for (const transit of [40, 3, 200]) clock.observe(T0, T0 + 5_000 - transit);
    expect(clock.offsetMs).toBe(4_997);
  });

  it("forgets after minutes, so that a drifting clock is followed", () => {
    const clock = new ClockOffset();
    for (let s = 0; s < 1_200; s += 1) clock.observe(T0 + s * 1000, T0 + s * 1000 - s);
    expect(clock.offsetMs).toBeLessThan(-500);
  });

  it("is 0 before it knows", () => {
    expect(new ClockOffset().offsetMs).toBe(0);
  });
});

describe("Delays", () => {
  it("is the median of the last ones only", () => {
    const delays = new Delays();
    expect(delays.median()).toBeNull();
    delays.add(30);
    delays.add(40);
    expect(delays.median()).toBe(35);
    delays.add(9_000);
    expect(delays.median()).toBe(40);
    for (let i = 0; i < DELAYS_MAX; i += 1) delays.add(12);
    expect(delays.median()).toBe(12);
  });
});

describe("measuredAtMs", () => {
  it("is the earlier of the two clocks, unless the sensor's was never set", () => {
    expect(measuredAtMs(T0 - 9_000, T0)).toBe(T0 - 9_000);
    expect(measuredAtMs(T0 + 9_000, T0)).toBe(T0);
    expect(measuredAtMs(null, T0)).toBe(T0);
    expect(measuredAtMs(12_345, T0)).toBe(T0);
  });
});

describe("NumericSeries", () => {
  function everySecond(count: number): NumericSeries {
    const series = new NumericSeries("d/s", "d", HR);
    for (let k = 0; k < count; k += 1) series.add(T0 + k * 1000, 70 + k, T0 + k * 1000, true);
    return series;
  }

  it("greys at 5 s, is lost after 10 s", () => {
    const series = everySecond(4);
    const at = (ms: number): string => series.freshness(T0 + 3_000 + ms, T0 + 3_000 + ms);
    expect([0, 4_900, 5_100, 10_000, 10_100, 3_600_000].map(at)).toEqual(["fresh", "fresh", "old", "old", "lost", "lost"]);
  });

  it("is lost by silence too, should the clocks disagree", () => {
    const series = everySecond(4);
    expect(series.freshness(T0 + 60_000, T0 + 3_000)).toBe("lost");
  });

  it("keeps the newest value when backlog comes", () => {
    const series = everySecond(4);
    series.add(T0 - 60_000, 44, T0 + 4_000, false);
    expect(series.value).toBe(73);
    expect(series.trend.at(Math.floor((T0 - 60_000) / TREND_BIN_MS))).toBe(44);
  });

  it("does not take an outage for a slow quantity", () => {
    const series = everySecond(4);
    series.add(T0 + 300_000, 90, T0 + 300_000, true);
    expect(series.freshness(T0 + 311_000, T0 + 311_000)).toBe("lost");
  });

  it("shows the age of what comes every minute, and loses it after three", () => {
    const series = new NumericSeries("d/s", "d", HR);
    for (let k = 0; k < 5; k += 1) series.add(T0 + k * 60_000, 70, T0 + k * 60_000, true);
    const at = (ms: number): string => series.freshness(T0 + 240_000 + ms, T0 + 240_000 + ms);
    expect([1_000, 55_000, 179_000, 181_000].map(at)).toEqual(["fresh", "old", "old", "lost"]);
  });

  it("keeps a spot value, greyed when a next one was due", () => {
    const weight = new NumericSeries("d/w", "d", WEIGHT);
    weight.add(T0, 71.5, T0, true);
    expect(weight.freshness(T0 + 3_600_000, T0 + 3_600_000)).toBe("fresh");
    expect(weight.freshness(T0 + 5 * 3_600_000, T0 + 5 * 3_600_000)).toBe("old");
    weight.add(T0 + 1_000, 71.5, T0 + 1_000, true);
    weight.add(T0 + 2_000, 71.5, T0 + 2_000, true);
    expect(weight.freshness(T0 + 60_000, T0 + 60_000)).toBe("old");
  });
});

describe("Trend", () => {
  it("holds an hour, in whatever order it came", () => {
    const trend = new Trend();
    const bin = Math.floor(T0 / TREND_BIN_MS);
    expect(trend.add(T0, 3)).toBe(true);
    expect(trend.add(T0 - 20 * TREND_BIN_MS, 1)).toBe(true);
    expect(trend.add(T0 - 10 * TREND_BIN_MS, 2)).toBe(true);
    expect([0, 10, 20].map((ago) => trend.at(bin - ago))).toEqual([3, 2, 1]);
    expect(trend.at(bin - 5)).toBeNaN();
    expect(trend.oldestMs(T0)).toBe((bin - 20) * TREND_BIN_MS);
  });

  it("lets neither an older hour nor an earlier reading of the same bin overwrite", () => {
    const trend = new Trend();
    trend.add(T0 + 400, 3);
    expect(trend.add(T0 + 100, 9)).toBe(false);
    expect(trend.add(T0 - TREND_BINS * TREND_BIN_MS, 9)).toBe(false);
    expect(trend.at(Math.floor(T0 / TREND_BIN_MS))).toBe(3);
    trend.add(T0 + TREND_BINS * TREND_BIN_MS, 4);
    expect(trend.at(Math.floor(T0 / TREND_BIN_MS))).toBeNaN();
  });

  it("shows the shortest span with all of it", () => {
    expect([null, T0 - 200_000, T0 - 400_000, T0 - 3_500_000, T0 - 9e9].map((oldest) => trendSpanMs(oldest, T0) / 60_000)).toEqual([
      5, 5, 15, 60, 60,
    ]);
  });
});

describe("chooseGain", () => {
  it("draws an ECG at 10 mm/mV where that fits and at the next smaller where not", () => {
    const mm = (high: number, height: number): number =>
      chooseGain("ecg", "mV", { low: 0, high }, height, null).pxPerUnit / CSS_PX_PER_MM;
    expect(mm(1, 100)).toBeCloseTo(10);
    expect(mm(0.1, 100)).toBeCloseTo(10);
    expect(mm(3, 100)).toBeCloseTo(5);
    expect(mm(60, 100)).toBeCloseTo(0.625);
  });

  it("has a 1 mV mark of the gain's height", () => {
    const gain = chooseGain("ecg", "mV", { low: -0.3, high: 1.1 }, 120, null);
    expect(gain.label).toBe("10 mm/mV");
    expect(((gain.mark?.high ?? 0) - (gain.mark?.low ?? 0)) * gain.pxPerUnit).toBeCloseTo(10 * CSS_PX_PER_MM);
  });

  it("stays while the trace fits, follows when it leaves the lane", () => {
    const first = chooseGain("ecg", "mV", { low: -0.3, high: 1.1 }, 120, null);
    expect(chooseGain("ecg", "mV", { low: -0.4, high: 1.2 }, 120, first)).toBe(first);
    const moved = chooseGain("ecg", "mV", { low: 2.0, high: 3.4 }, 120, first);
    expect(moved.centre).toBeCloseTo(2.7);
  });

  it("fills the lane between round numbers for a unit, edge to edge without", () => {
    const pressure = chooseGain("pressure", "mm[Hg]", { low: 74, high: 121 }, 100, null);
    expect(pressure.mark).toEqual({ low: 60, high: 140 });
    const pleth = chooseGain("spo2", "1", { low: 0, high: 1.3 }, 100, null);
    expect(pleth.mark).toBeNull();
    expect(pleth.pxPerUnit * 1.3).toBeCloseTo(92);
  });

  it("gives a flat line a finite gain", () => {
    for (const level of [0, 5, -3, 1e-9]) {
      for (const unit of ["mm[Hg]", "1", "mV"]) {
        const gain = chooseGain(unit === "mV" ? "ecg" : "pressure", unit, { low: level, high: level }, 80, null);
        expect(Number.isFinite(gain.pxPerUnit) && gain.pxPerUnit > 0).toBe(true);
        expect(Number.isFinite(gain.centre)).toBe(true);
      }
    }
  });
});

describe("print", () => {
  it("writes ages, units and values as one reads them", () => {
    expect([900, 99_000, 100_000, 5_000_000, 7_200_000, 200_000_000].map(printAge)).toEqual(["0 s", "99 s", "1 min", "83 min", "2 h", "2 d"]);
    expect(["mm[Hg]", "Cel", "1", null, "/min"].map(printUnit)).toEqual(["mmHg", "°C", "", "", "/min"]);
    expect(printValue(71.6, HR)).toBe("72");
    expect(printValue(71.55, WEIGHT)).toMatch(/^71\.[56]$/);
  });

  it("knows a quantity by its code, else by its name", () => {
    expect(present(HR)).toMatchObject({ kind: "ecg", label: "HR", large: true });
    expect(present({ ...HR, name: "ecg-v1", mdc: 131389, display: "ECG V1" })).toMatchObject({ kind: "ecg", label: "ECG V1" });
    expect(present({ ...HR, name: "pleth", mdc: null, loinc: null, display: "Pleth" }).kind).toBe("spo2");
    expect(present({ ...HR, name: "x", mdc: 150021, loinc: null })).toMatchObject({ kind: "pressure", spot: true });
    expect(present({ ...HR, name: "strange", mdc: null, loinc: null, display: "Strange" })).toMatchObject({ kind: "other", label: "Strange" });
  });
});
