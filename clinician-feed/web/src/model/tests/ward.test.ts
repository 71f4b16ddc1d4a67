import { describe, expect, it } from "vitest";
import { cells, trendRows } from "../cells";
import { BEDS_MAX } from "../protocol";
import { CHANNELS_MAX, EVENTS_MAX, NUMERICS_MAX, Ward } from "../ward";
import type { Bed } from "../ward";
import { OTHER, PATIENT, T0, event, hello, numeric, wave } from "./frames";

function bedOf(ward: Ward, patient = PATIENT): Bed {
  const bed = ward.beds.get(patient);
  if (bed === undefined) throw new Error("no bed");
  return bed;
}

function started(next = 1): Ward {
  const ward = new Ward();
  ward.receive(hello(next), T0);
  return ward;
}

describe("Ward: numbering", () => {
  it("asks to go on after the last reading, and takes none twice", () => {
    const ward = started();
    expect(ward.resumeFrom).toBeNull();
    expect(ward.receive(numeric(7, T0, 70), T0 + 20)).not.toBeNull();
    expect(ward.receive(numeric(7, T0, 70), T0 + 20)).toBeNull();
    expect(ward.resumeFrom).toBe(8);
    ward.receive(hello(8), T0 + 900);
    expect(ward.receive(numeric(7, T0, 70), T0 + 901)).toBeNull();
    expect(ward.receive(numeric(8, T0, 71), T0 + 902)).not.toBeNull();
    expect(ward.missed).toBe(0);
  });

  it("counts what the feed no longer held", () => {
    const ward = started();
    ward.receive(numeric(7, T0, 70), T0 + 20);
    ward.receive(hello(12), T0 + 900);
    ward.receive(numeric(12, T0, 71), T0 + 901);
    expect(ward.missed).toBe(4);
  });

  it("takes what came ahead of a backlog once, and goes on behind the backlog", () => {
    const ward = started();
    ward.receive(numeric(7, T0, 70), T0 + 20);
    expect(ward.receive(numeric(90, T0, 71, { ahead: true }), T0 + 30)).not.toBeNull();
    expect(ward.resumeFrom).toBe(8);
    expect(ward.receive(numeric(8, T0 - 60_000, 72), T0 + 40)).not.toBeNull();
    ward.receive(hello(91), T0 + 900);
    expect(ward.receive(numeric(90, T0, 71, { ahead: true }), T0 + 901)).toBeNull();
    for (let n = 9; n < 90; n += 1) expect(ward.receive(numeric(n, T0 - 60_000, 72), T0 + 902)).not.toBeNull();
    expect(ward.receive(numeric(91, T0, 73), T0 + 903)).not.toBeNull();
    expect([ward.resumeFrom, ward.missed]).toEqual([92, 0]);
    // A feed that began anew has other readings under these numbers.
    ward.receive(numeric(200, T0, 74, { ahead: true }), T0 + 904);
    ward.receive(hello(150), T0 + 905);
    expect(ward.receive(numeric(200, T0, 75), T0 + 906)).not.toBeNull();
  });

  it("follows a feed that began to count anew", () => {
    const ward = started();
    ward.receive(numeric(700, T0, 70), T0 + 20);
    ward.receive(hello(1, T0 + 900), T0 + 900);
    expect(ward.receive(numeric(1, T0 + 900, 71), T0 + 901)).not.toBeNull();
    expect(ward.resumeFrom).toBe(2);
  });
});

describe("Ward: bad input", () => {
  it("counts by reason and goes on", () => {
    const ward = started();
    for (const frame of ["{", '{"type":"x"}', numeric(1, T0, 70, { class: "x" })]) expect(ward.receive(frame, T0)).toBeNull();
    expect([...ward.refused]).toEqual([["not-json", 1], ["unknown-type", 1], ["bad-field", 1]]);
    expect(ward.receive(numeric(1, T0, 70), T0)).not.toBeNull();
  });

  it("bounds beds, numerics, channels and events", () => {
    const ward = started();
    let n = 0;
    for (let i = 0; i < BEDS_MAX + 5; i += 1) {
      const patient = i.toString(16).padStart(32, "0");
      ward.receive(numeric((n += 1), T0, 70, { patient }), T0);
    }
    expect(ward.beds.size).toBe(BEDS_MAX);
    for (let i = 0; i < 40; i += 1) {
      ward.receive(numeric((n += 1), T0, 70, { stream: `s${i}` }), T0);
      ward.receive(wave((n += 1), T0 - 250, 62, T0, { stream: `w${i}` }), T0);
    }
    for (let i = 0; i < EVENTS_MAX + 9; i += 1) ward.receive(event((n += 1), T0 + i, T0 + i), T0 + i);
    const bed = bedOf(ward);
    expect([bed.numerics.size, bed.channels.size, bed.events.length]).toEqual([NUMERICS_MAX, CHANNELS_MAX, EVENTS_MAX]);
    expect(ward.refused.get("beds-full")).toBe(6);
    expect(ward.refused.get("numerics-full")).toBe(40 - NUMERICS_MAX);
    expect(ward.refused.get("channels-full")).toBe(40 - CHANNELS_MAX);
  });
});

describe("Ward: delay", () => {
  it("is from measurement to page by the feed's clock, whatever the page's clock says", () => {
    const ward = new Ward();
    const skew = -7_200_000;
    ward.receive(hello(1), T0 + skew);
    for (let k = 1; k <= 20; k += 1) {
      const atMs = T0 + k * 1000;
      ward.receive(numeric(k, atMs, 70, { opened_ms: atMs + 30 }), atMs + 31 + skew);
    }
    expect(ward.delays.median()).toBeGreaterThanOrEqual(30);
    expect(ward.delays.median()).toBeLessThanOrEqual(31);
  });

  it("does not count backlog", () => {
    const ward = started();
    ward.receive(numeric(1, T0, 70), T0 + 20);
    for (let k = 2; k < 50; k += 1) ward.receive(numeric(k, T0 - 600_000 + k * 1000, 70), T0 + 30);
    expect(ward.delays.median()).toBeLessThan(25);
    expect(bedOf(ward).backlogMs).toBe(T0 + 30);
  });
});

describe("Ward: waveforms", () => {
  /** Live chunks of 248 ms (62 samples at 4 ms), arriving 20 ms after their end. */
  function live(ward: Ward, n: number, k: number): void {
    const firstMs = T0 + k * 248;
    ward.receive(wave(n, firstMs, 62, firstMs + 250), firstMs + 268);
  }

  it("draws backlog only where the sweep still shows its time", () => {
    const ward = started();
    for (let k = 0; k < 10; k += 1) live(ward, k + 1, k);
    const channel = [...bedOf(ward).channels.values()][0];
    if (channel === undefined) throw new Error("no channel");
    const nowMs = T0 + 9 * 248 + 268;
    const { offsetMs } = channel.playout;
    const before = [channel.samples.length, channel.redraw, channel.liveMs];
    ward.receive(wave(11, T0 - 60_000, 62, T0 - 59_000, { opened_ms: nowMs }), nowMs + 1);
    expect([channel.samples.length, channel.redraw, channel.liveMs]).toEqual(before);
    ward.receive(wave(12, T0 - 10_000, 62, T0 - 9_000, { opened_ms: nowMs }), nowMs + 2);
    expect(channel.samples.length).toBe((before[0] ?? 0) + 62);
    expect(channel.redraw).toBe((before[1] ?? 0) + 1);
    expect(channel.samples.timeAt(0)).toBe(T0 - 10_000);
    expect(channel.playout.offsetMs).toBe(offsetMs);
  });

  it("does not take a lead without values for a live one", () => {
    const ward = started();
    const missing = { wave: { t0_us: T0 * 1000, period_ns: 4_000_000, scale: 0.005, offset: 0, samples: [-32_768, -32_768] } };
    ward.receive(wave(1, T0, 2, T0 + 8, missing), T0 + 20);
    const channel = [...bedOf(ward).channels.values()][0];
    expect(channel?.samples.length).toBe(2);
    expect(channel?.liveMs).toBe(-Infinity);
    expect(ward.liveMs).toBe(T0 + 20);
  });

  it("draws nothing from backlog before anything live", () => {
    const ward = started();
    ward.receive(wave(1, T0 - 60_000, 62, T0 - 59_000, { opened_ms: T0 }), T0);
    const channel = [...bedOf(ward).channels.values()][0];
    expect(channel?.samples.length).toBe(0);
    expect(channel?.liveMs).toBe(-Infinity);
  });

  it("does not redraw for a steady stream", () => {
    const ward = started();
    for (let k = 0; k < 3; k += 1) live(ward, k + 1, k);
    const channel = [...bedOf(ward).channels.values()][0];
    const before = channel?.redraw;
    for (let k = 3; k < 100; k += 1) live(ward, k + 1, k);
    expect(channel?.redraw).toBe(before);
  });

  it("aligns the channels of one device", () => {
    const ward = started();
    ward.receive(wave(1, T0, 62, T0 + 250, { stream: "ecg-i" }), T0 + 268);
    const [first] = [...bedOf(ward).channels.values()];
    const before = [first?.playout.offsetMs, first?.redraw];
    // The second channel's chunk comes later: both are held back for it.
    ward.receive(wave(2, T0, 62, T0 + 250, { stream: "ecg-ii" }), T0 + 290);
    const [, second] = [...bedOf(ward).channels.values()];
    expect(second?.playout).toBe(first?.playout);
    expect([first?.playout.offsetMs, first?.redraw]).toEqual([(before[0] ?? 0) + 22, (before[1] ?? 0) + 1]);
  });

  it("clears what was drawn by another clock", () => {
    const ward = started();
    for (let k = 0; k < 10; k += 1) live(ward, k + 1, k);
    const channel = [...bedOf(ward).channels.values()][0];
    const nowMs = T0 + 4_000;
    ward.receive(wave(11, nowMs + 3_600_000, 62, nowMs), nowMs + 10);
    expect(channel?.samples.length).toBe(62);
  });
});

describe("Ward: beds, chains, link, events", () => {
  it("drops a bed that the feed no longer lists, keeps what is known of the others", () => {
    const ward = new Ward();
    ward.receive(hello(1, T0, [PATIENT, OTHER]), T0);
    ward.receive(numeric(1, T0, 70), T0);
    ward.receive(hello(2, T0, [PATIENT]), T0);
    expect([...ward.beds.keys()]).toEqual([PATIENT]);
    expect(bedOf(ward).numerics.size).toBe(1);
  });

  it("shows a patient without a bed rather than nothing", () => {
    const ward = started();
    ward.receive(numeric(1, T0, 70, { patient: OTHER }), T0);
    expect(bedOf(ward, OTHER)).toMatchObject({ name: "No bed", category: "unknown" });
  });

  it("keeps chain and link", () => {
    const ward = started();
    ward.receive(`{"type":"chain","patient":"${PATIENT}","class":"vitals","verified":45,"gap":[46,50]}`, T0);
    expect(bedOf(ward).chains.get("vitals")).toEqual({ verified: 45, gap: [46, 50], told: null });
    ward.receive('{"type":"link","core":"down"}', T0);
    expect(ward.coreUp).toBe(false);
  });

  it("lists events by their own time, late ones marked", () => {
    const ward = started();
    ward.receive(event(1, T0, T0), T0 + 5);
    ward.receive(event(2, T0 - 60_000, T0 - 60_000), T0 + 6);
    ward.receive(event(3, T0 + 1_000, T0 + 1_000), T0 + 1_005);
    expect(bedOf(ward).events.map(({ atMs, late }) => [atMs - T0, late])).toEqual([[1_000, false], [0, false], [-60_000, true]]);
  });
});

describe("cells", () => {
  const pressure = (n: number, name: string, mdc: number, value: number): string =>
    numeric(n, T0, value, { stream: name, code: { name, loinc: null, mdc, display: name, unit: "mm[Hg]" } });

  it("puts a pressure's parts together", () => {
    const ward = started();
    ward.receive(pressure(1, "sys", 150037, 122), T0);
    ward.receive(pressure(2, "dia", 150038, 78), T0);
    ward.receive(pressure(3, "mean", 150039, 93), T0);
    ward.receive(numeric(4, T0, 71.6), T0);
    const shown = cells(bedOf(ward), T0 + 2_000, T0 + 2_000);
    expect(shown.map(({ label, text, extra, age }) => [label, text, extra, age])).toEqual([
      ["HR", "72", null, "2 s"],
      ["ABP", "122/78", "(93)", "2 s"],
    ]);
    expect(trendRows(bedOf(ward), 4).map((series) => series.key)).toEqual(["monitor-1/heart-rate", "monitor-1/sys"]);
  });

  it("shows no value that may not be read as the present", () => {
    const ward = started();
    ward.receive(numeric(1, T0, 72), T0);
    const [cell] = cells(bedOf(ward), T0 + 34_000, T0 + 34_000);
    expect(cell).toMatchObject({ text: "– –", freshness: "lost", last: "72", age: "34 s" });
  });

  it("names the device where a quantity is there twice", () => {
    const ward = started();
    ward.receive(numeric(1, T0, 72), T0);
    ward.receive(numeric(2, T0, 74, { device: "patch-9" }), T0);
    expect(cells(bedOf(ward), T0, T0).map((cell) => cell.device)).toEqual(["monitor-1", "patch-9"]);
  });
});

describe("Ward: what is not durable yet", () => {
  const provisional = (atMs: number, value: number): string => numeric(0, atMs, value, { type: "provisional", n: undefined });
  const link = (core: string): string => JSON.stringify({ type: "link", core });
  const shown = (ward: Ward): unknown => cells(bedOf(ward), T0 + 2000, T0 + 2000).map((cell) => [cell.text, cell.provisional]);

  it("is shown as such until it comes as a reading", () => {
    const ward = started();
    ward.receive(provisional(T0, 70), T0);
    expect(bedOf(ward).numerics.size).toBe(0);
    ward.receive(numeric(1, T0, 72), T0);
    expect(ward.receive(provisional(T0 + 1000, 74), T0 + 1000)).toBeNull();
    expect(shown(ward)).toEqual([["74", true]]);
    expect(ward.resumeFrom).toBe(2);
    ward.receive(numeric(2, T0 + 1000, 74), T0 + 1010);
    expect(shown(ward)).toEqual([["74", false]]);
    ward.receive(provisional(T0, 99), T0 + 1020);
    expect(shown(ward)).toEqual([["74", false]]);
  });

  it("never was where the connection to the core is made anew without it", () => {
    const ward = started();
    ward.receive(numeric(1, T0, 72), T0);
    ward.receive(provisional(T0 + 1000, 74), T0 + 1000);
    ward.receive(link("down"), T0 + 1100);
    expect(shown(ward)).toEqual([["74", true]]);
    ward.receive(link("up"), T0 + 1200);
    expect(shown(ward)).toEqual([["72", false]]);
  });
});
