/** Frames as the feed sends them, for the tests. */
export const PATIENT = "8f3a61c2d09b47e5a1b2c3d4e5f60718";
export const OTHER = "00112233445566778899aabbccddeeff";
/** 2026-09-21, Unix ms: where `now` starts. */
export const T0 = 1_790_000_000_000;

type Fields = Record<string, unknown>;

export function hello(next: number, serverMs = T0, patients: readonly string[] = [PATIENT]): string {
  const beds = patients.map((patient, i) => ({ bed: `Bed ${i + 1}`, patient, category: "adult" }));
  return JSON.stringify({ type: "hello", server_ms: serverMs, next, beds });
}

export function readingObject(n: number, atMs: number, over: Fields = {}): Fields {
  return {
    type: "reading",
    n,
    patient: PATIENT,
    class: "vitals",
    segment: 45,
    device: "monitor-1",
    stream: "heart-rate",
    seq: n,
    sensor_us: atMs * 1000,
    gateway_us: atMs * 1000 + 1000,
    flags: 0,
    opened_ms: atMs + 12,
    code: { name: "heart-rate", loinc: "8867-4", mdc: 147842, display: "Heart rate", unit: "/min" },
    numeric: 72,
    ...over,
  };
}

export function numeric(n: number, atMs: number, value: number, over: Fields = {}): string {
  return JSON.stringify(readingObject(n, atMs, { numeric: value, ...over }));
}

/** A chunk of `count` samples at 4 ms whose first sample is at `t0Ms`; the gateway received it `gatewayMs`. */
export function wave(n: number, t0Ms: number, count: number, gatewayMs: number, over: Fields = {}): string {
  return JSON.stringify(
    readingObject(n, t0Ms, {
      class: "waveform",
      stream: "ecg-ii",
      gateway_us: gatewayMs * 1000,
      opened_ms: gatewayMs,
      code: { name: "ecg-ii", loinc: null, mdc: 131330, display: "ECG lead II", unit: "mV" },
      numeric: undefined,
      wave: { t0_us: t0Ms * 1000, period_ns: 4_000_000, scale: 0.005, offset: -5.12, samples: Array<number>(count).fill(1024) },
      ...over,
    }),
  );
}

export function event(n: number, atMs: number, gatewayMs: number): string {
  const code = { name: "fall", loinc: null, mdc: 8519681, display: "Fall", unit: null };
  return JSON.stringify(
    readingObject(n, atMs, { class: "alarm", stream: "fall", gateway_us: gatewayMs * 1000, opened_ms: gatewayMs, code, numeric: undefined, event: true }),
  );
}
