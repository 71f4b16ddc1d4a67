import { describe, expect, it } from "vitest";
import { FRAME_CHARS_MAX, FrameError, SAMPLES_MAX, parseFrame } from "../protocol";
import { PATIENT, T0, hello, readingObject, wave } from "./frames";

function refusal(frame: string): string {
  try {
    parseFrame(frame);
  } catch (error) {
    if (error instanceof FrameError) return error.message;
    throw error;
  }
  return "accepted";
}

function refusalWith(over: Record<string, unknown>): string {
  return refusal(JSON.stringify(readingObject(1, T0, over)));
}

describe("parseFrame", () => {
  it("reads the interface's own examples", () => {
    const reading = parseFrame(
      '{"type":"reading","n":512,"patient":"8f3a61c2d09b47e5a1b2c3d4e5f60718","class":"vitals","segment":45,"device":"monitor-1","stream":"heart-rate","seq":7,"sensor_us":1790000000000000,"gateway_us":1790000000001000,"flags":0,"opened_ms":1790000000012,"code":{"name":"heart-rate","loinc":"8867-4","mdc":147842,"display":"Heart rate","unit":"/min"},"numeric":72.0}',
    );
    expect(reading).toMatchObject({ n: 512, seq: 7, sensorMs: T0, gatewayMs: T0 + 1, value: { kind: "numeric", numeric: 72 } });
    expect(parseFrame(hello(512))).toEqual({
      type: "hello",
      serverMs: T0,
      next: 512,
      beds: [{ bed: "Bed 1", patient: PATIENT, category: "adult" }],
    });
    expect(parseFrame(`{"type":"chain","patient":"${PATIENT}","class":"vitals","verified":45,"gap":[46,50]}`)).toMatchObject({
      verified: 45,
      gap: [46, 50],
    });
    expect(parseFrame('{"type":"link","core":"down"}')).toEqual({ type: "link", core: "down" });
  });

  it("scales samples and keeps missing ones missing", () => {
    const frame = parseFrame(
      JSON.stringify(
        readingObject(1, T0, {
          numeric: undefined,
          wave: { t0_us: T0 * 1000, period_ns: 2_777_778, scale: 0.005, offset: -5.12, samples: [995, -32768, 1224] },
        }),
      ),
    );
    if (frame.type !== "reading" || frame.value.kind !== "wave") throw new Error("not a wave");
    expect(frame.value.wave.values[0]).toBeCloseTo(-0.145, 5);
    expect(frame.value.wave.values[1]).toBeNaN();
    expect(frame.value.wave.values[2]).toBeCloseTo(1.0, 5);
    expect(frame.value.wave.periodMs).toBeCloseTo(2.777778, 9);
  });

  it("names where a frame is wrong", () => {
    expect(refusal("{")).toBe("not-json at frame");
    expect(refusal("[]")).toBe("bad-field at frame");
    expect(refusal("null")).toBe("bad-field at frame");
    expect(refusal('{"type":"what"}')).toBe("unknown-type at type");
    expect(refusal(" ".repeat(FRAME_CHARS_MAX + 1))).toBe("too-long at frame");
    expect(refusalWith({ n: -1 })).toBe("bad-field at n");
    expect(refusalWith({ n: 1.5 })).toBe("bad-field at n");
    expect(refusalWith({ patient: PATIENT.toUpperCase() })).toBe("bad-field at patient");
    expect(refusalWith({ class: "billing" })).toBe("bad-field at class");
    expect(refusalWith({ device: "x".repeat(65) })).toBe("bad-field at device");
    expect(refusalWith({ gateway_us: null })).toBe("bad-field at gateway_us");
    expect(refusalWith({ code: { name: "x", display: "" } })).toBe("bad-field at code.display");
    expect(refusalWith({ event: true })).toBe("bad-field at numeric|wave|event");
    expect(refusalWith({ numeric: undefined })).toBe("bad-field at numeric|wave|event");
    expect(refusal(`{"type":"chain","patient":"${PATIENT}","class":"vitals","verified":1,"gap":[9,3]}`)).toBe("bad-field at gap");
    const told = (fields: string): string => `{"type":"chain","patient":"${PATIENT}","class":"vitals","verified":1,"gap":null,"told":{${fields}}}`;
    expect(parseFrame(told(`"why":"expired","first":2,"last":9,"from_ms":7,"to_ms":null`))).toMatchObject({
      told: { why: "expired", first: 2, last: 9, fromMs: 7, toMs: null },
    });
    expect(refusal(told(`"why":"stolen","first":2,"last":9`))).toBe("bad-field at told.why");
    expect(refusal(told(`"why":"expired","first":9,"last":2`))).toBe("bad-field at told");
  });

  it("bounds a chunk", () => {
    const chunk = (samples: unknown, periodNs = 1): string =>
      refusalWith({ numeric: undefined, wave: { t0_us: 1, period_ns: periodNs, scale: 1, offset: 0, samples } });
    expect(chunk([])).toBe("bad-field at wave.samples");
    expect(chunk(Array(SAMPLES_MAX).fill(0))).toBe("accepted");
    expect(chunk(Array(SAMPLES_MAX + 1).fill(0))).toBe("bad-field at wave.samples");
    expect(chunk([0, 40_000])).toBe("bad-field at wave.samples[1]");
    expect(chunk([0, null])).toBe("bad-field at wave.samples[1]");
    expect(chunk([0], 0)).toBe("bad-field at wave.period_ns");
  });

  it("never throws anything but a FrameError, whatever is cut off or replaced", () => {
    const whole = wave(1, T0, 3, T0);
    for (let cut = 0; cut < whole.length; cut += 1) expect(refusal(whole.slice(0, cut))).not.toBe("accepted");
    for (const key of Object.keys(readingObject(1, T0))) {
      for (const value of [null, true, -1, 1.5, "", "x".repeat(200), [], {}]) refusalWith({ [key]: value });
    }
  });
});

describe("what a gateway's watch says", () => {
  const standing = (over: Record<string, unknown> = {}): string =>
    JSON.stringify({
      type: "standing",
      patient: PATIENT,
      at_ms: T0,
      paused_until_ms: null,
      loudest: "medium",
      alarms: [
        { number: 3, text: "** SpO2 84 < 90", priority: "medium", kind: "low", technical: false, state: "active", since_ms: T0 },
      ],
      score: { total: 5, missing: ["temperature"] },
      category: "adult",
      pregnant: false,
      scale: "one",
      oxygen: [true, T0],
      consciousness: null,
      limits: [{ quantity: 3, metric: "spo2", display: "SpO2", unit: "%", low: 90, extreme_low: 80, delay_s: 10, hysteresis: 1 }],
      ...over,
    });

  it("is read whole", () => {
    expect(parseFrame(standing())).toMatchObject({
      alarms: [{ number: 3, text: "** SpO2 84 < 90", priority: "medium", state: "active", sinceMs: T0 }],
      score: { is: "sum", total: 5, missing: ["temperature"] },
      oxygen: true,
      consciousness: null,
      limits: [{ quantity: 3, low: 90, high: null, extremeLow: 80, delayS: 10 }],
    });
    expect(parseFrame(standing({ score: { refused: "pregnant" } }))).toMatchObject({ score: { is: "refused", why: "pregnant" } });
    expect(parseFrame(`{"type":"contact","patient":"${PATIENT}","heard":false,"policy":null}`)).toEqual({
      type: "contact",
      patient: PATIENT,
      heard: false,
      policy: null,
    });
    const policy = '"policy":{"stale":true,"clock_unknown":false,"one_sealer":true}';
    expect(parseFrame(`{"type":"contact","patient":"${PATIENT}","heard":true,${policy}}`)).toMatchObject({
      policy: { stale: true, clockUnknown: false, oneSealer: true },
    });
    expect(refusal(`{"type":"contact","patient":"${PATIENT}","heard":true,"policy":{"stale":1}}`)).toBe("bad-field at policy.stale");
  });

  it("is refused where it is wrong", () => {
    expect(refusal(standing({ alarms: [{ number: 3, text: "x", priority: "loud", state: "active", since_ms: 1 }] }))).toBe("bad-field at alarms[0].priority");
    expect(refusal(standing({ alarms: Array(65).fill({}) }))).toBe("bad-field at alarms");
    expect(refusal(standing({ score: { total: 21, missing: [] } }))).toBe("bad-field at score.total");
    expect(refusal(standing({ oxygen: ["yes", 1] }))).toBe("bad-field at oxygen");
    expect(refusal(standing({ consciousness: ["asleep", 1] }))).toBe("bad-field at consciousness");
    expect(refusal(`{"type":"contact","patient":"${PATIENT}"}`)).toBe("bad-field at heard");
  });
});
