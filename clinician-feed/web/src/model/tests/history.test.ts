import { describe, expect, it } from "vitest";
import { EVENTS_MAX, History, LINE_CHARS_MAX, PARTS, ROWS_MAX, historyFault, historyPath, historyText } from "../history";
import type { HistoryRequest } from "../history";
import { PATIENT, T0, event, numeric, wave } from "./frames";

const REQUEST: HistoryRequest = { patient: PATIENT, dataClass: "vitals", fromMs: T0, untilMs: T0 + 600_000 };
const END = { type: "end", readings: 1, refused: 0, gap: null, told: null };

/** A frame of the stream as a line of the history. */
function past(frame: string): string {
  return `${JSON.stringify({ ...(JSON.parse(frame) as object), type: "past", n: undefined })}\n`;
}

function line(object: object): string {
  return `${JSON.stringify(object)}\n`;
}

describe("History", () => {
  it("takes lines that are cut anywhere, and knows how far it is", () => {
    const history = new History(REQUEST);
    const text = past(numeric(1, T0 + 1_000, 70)) + past(numeric(2, T0 + 300_000, 90)) + line({ type: "progress", at_ms: T0 + 450_000 });
    for (let i = 0; i < text.length; i += 7) history.receive(text.slice(i, i + 7));
    expect([history.readings, history.leftOut, history.rows.size]).toEqual([2, 0, 1]);
    expect(history.progress).toBeCloseTo(0.75);
    expect(historyText(history)).toBe("75 %, 2 readings");
    const [row] = history.rows.values();
    expect([row?.min, row?.max, row?.low[PARTS / 2], row?.high[PARTS / 2]]).toEqual([70, 90, 90, 90]);
    history.receive(line(END));
    expect([history.state.is, history.progress, historyText(history)]).toEqual(["whole", 1, "2 readings."]);
    history.ended();
    expect(history.state.is).toBe("whole");
  });

  it("keeps the lowest and highest of a trace in each part, whatever its length", () => {
    const history = new History({ ...REQUEST, dataClass: "waveform" });
    history.receive(past(wave(1, T0 + 60_000, 250, T0 + 61_000)));
    const samples = Array.from({ length: 250 }, (_, i) => (i % 2 === 0 ? 1_024 : 1_224));
    history.receive(past(wave(2, T0 + 120_000, 250, T0 + 121_000, { wave: { t0_us: (T0 + 120_000) * 1000, period_ns: 4_000_000, scale: 0.01, offset: 0, samples } })));
    const [row] = history.rows.values();
    const part = Math.floor((120_500 / 600_000) * PARTS);
    expect([row?.low[part], row?.high[part]].map((value) => Math.round((value ?? 0) * 100))).toEqual([1_024, 1_224]);
    expect(row?.low[PARTS - 1]).toBeNaN();
  });

  it("says what is missing, and what could not be shown", () => {
    const history = new History(REQUEST);
    history.receive(line({ type: "past" }) + line({ type: "unheard" }) + "{\n");
    const told = { why: "expired", first: 3, last: 4, from_ms: null, to_ms: null };
    history.receive(line({ ...END, refused: 2, gap: [5, 9], told }));
    expect(historyText(history)).toBe(
      "Nothing of vitals is there of this time that this hospital may open; missing #5–9; some was let go undelivered by the gateway; 2 could not be opened; 3 not shown.",
    );
  });

  it("says why it is not whole, and takes nothing after that", () => {
    const history = new History(REQUEST);
    history.receive(past(numeric(1, T0, 70)) + line({ type: "failed", error: "the core is not connected" }) + past(numeric(2, T0, 71)));
    expect(historyText(history)).toBe("Not all has come: the core is not connected. 1 reading is shown.");
    const lost = new History(REQUEST);
    lost.receive(past(numeric(1, T0, 70)).slice(0, 40));
    lost.ended();
    expect(lost.state).toEqual({ is: "failed", why: "The connection to the feed was lost before all had come." });
  });

  it("is bounded", () => {
    const history = new History(REQUEST);
    for (let i = 0; i < ROWS_MAX + 3; i += 1) history.receive(past(numeric(i + 1, T0 + 1, 70, { stream: `metric-${i}` })));
    for (let i = 0; i < EVENTS_MAX + 2; i += 1) history.receive(past(event(i + 1, T0 + 1, T0 + 2)));
    expect([history.rows.size, history.events.length, history.leftOut]).toEqual([ROWS_MAX, EVENTS_MAX, 5]);
    history.receive("x".repeat(LINE_CHARS_MAX + 1));
    expect(history.state.is).toBe("failed");
  });
});

describe("HistoryRequest", () => {
  it("is refused in words, and names no more than it must", () => {
    const fault = (over: Partial<HistoryRequest>): string | null => historyFault({ ...REQUEST, ...over }, T0 + 1_000);
    expect(fault({})).toBeNull();
    expect(fault({ fromMs: Number.NaN })).toBe("Say from when.");
    expect(fault({ fromMs: T0 + 2_000 })).toBe("That time has not come yet.");
    expect(fault({ dataClass: "waveform", untilMs: T0 + 3_700_000 })).toBe("Of waveform at most 60 minutes at once.");
    expect(fault({ untilMs: T0 + 90_000_000 })).toBe("Of vitals at most 24 hours at once.");
    expect(historyPath(REQUEST)).toBe(`/api/history?patient=${PATIENT}&class=vitals&from_ms=${T0}&until_ms=${T0 + 600_000}`);
  });
});
