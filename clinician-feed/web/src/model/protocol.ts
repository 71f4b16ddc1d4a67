/**
 * The feed's stream (docs/feed-api.md, "Stream"): one JSON object per text frame, checked field by field before any
 * of it reaches the page. A frame that fails is refused whole, with the reason under which it is counted.
 */

/** What consent distinguishes; the order is that of the lanes, highest first. */
export const DATA_CLASSES = ["alarm", "vitals", "waveform", "activity", "sensitive"] as const;
export type DataClass = (typeof DATA_CLASSES)[number];

export const CATEGORIES = ["adult", "child", "neonate"] as const;
/** Patient category; `unknown` is the page's own word for a patient whom the hello did not name. */
export type Category = (typeof CATEGORIES)[number] | "unknown";

export interface BedEntry {
  readonly bed: string;
  /** Pseudonym, 32 hexadecimal digits. */
  readonly patient: string;
  readonly category: Category;
}

export interface Code {
  readonly name: string;
  readonly loinc: string | null;
  readonly mdc: number | null;
  readonly display: string;
  /** UCUM, null for an event. */
  readonly unit: string | null;
}

export interface Wave {
  /** Unix time of the first sample, ms, by the device's clock. */
  readonly t0Ms: number;
  readonly periodMs: number;
  /** Physical values; NaN where a sample is missing. */
  readonly values: Float32Array;
}

export interface Reading {
  readonly type: "reading";
  readonly n: number;
  /** It is live, and readings of lower numbers are still to come. */
  readonly ahead: boolean;
  readonly patient: string;
  readonly dataClass: DataClass;
  readonly segment: number;
  readonly device: string;
  readonly stream: string;
  readonly seq: number | null;
  /** Device clock, Unix ms. */
  readonly sensorMs: number | null;
  /** Gateway clock, Unix ms. */
  readonly gatewayMs: number;
  readonly flags: number;
  /** Feed clock when the segment was opened, Unix ms. */
  readonly openedMs: number;
  readonly code: Code;
  readonly value:
    | { readonly kind: "numeric"; readonly numeric: number }
    | { readonly kind: "wave"; readonly wave: Wave }
    | { readonly kind: "event" };
}

/** A reading that is not durable at the core; it comes again, as a reading, when it is. */
export type Provisional = Omit<Reading, "type" | "n" | "ahead"> & { readonly type: "provisional" };

/** A line of the history. */
export type Past =
  | (Omit<Reading, "type" | "n" | "ahead"> & { readonly type: "past" })
  | { readonly type: "progress"; readonly atMs: number }
  | PastEnd
  | { readonly type: "failed"; readonly error: string };

/** Its last line, where all has come. */
export interface PastEnd {
  readonly type: "end";
  readonly readings: number;
  readonly refused: number;
  readonly gap: readonly [number, number] | null;
  readonly told: Told | null;
}

export interface Hello {
  readonly type: "hello";
  readonly serverMs: number;
  readonly next: number;
  readonly beds: readonly BedEntry[];
}

export interface Chain {
  readonly type: "chain";
  readonly patient: string;
  readonly dataClass: DataClass;
  /** Highest sequence up to which the chain is verified without a gap; null before the first. */
  readonly verified: number | null;
  /** Lowest missing range of which the gateway has said nothing, inclusive. */
  readonly gap: readonly [number, number] | null;
  /** The newest range of which the gateway said that it is missing. */
  readonly told: Told | null;
}

/** Segments that the gateway itself said are missing; times are Unix ms, null where they aren't known. */
export interface Told {
  readonly why: "expired" | "damaged";
  readonly first: number;
  readonly last: number;
  readonly fromMs: number | null;
  readonly toMs: number | null;
}

export interface Link {
  readonly type: "link";
  readonly core: "up" | "down";
}

export const ENDS = ["revoked", "replaced", "expired", "emergency_over", "suspended"] as const;
export type End = (typeof ENDS)[number];

/** What access to a patient rests on, by the ledger. Times are Unix ms. */
export type Basis =
  | { readonly basis: "unknown" | "none" }
  | { readonly basis: "pending"; readonly fromMs: number }
  | { readonly basis: "consent" | "emergency"; readonly untilMs: number }
  | { readonly basis: "ended"; readonly atMs: number; readonly why: End };

export interface Access {
  readonly type: "access";
  readonly patient: string;
  readonly basis: Basis;
}

export interface Ledger {
  readonly type: "ledger";
  readonly state: "starting" | "following" | "away";
  /** Since when it is away, Unix ms. */
  readonly sinceMs: number | null;
  /** Whether this feed can break the glass, and whether the ledger would take it. */
  readonly breakGlass: "no_key" | "refused" | "ready";
}

/** The most urgent first. */
export const PRIORITIES = ["high", "medium", "low"] as const;
export type Priority = (typeof PRIORITIES)[number];
export const ALARM_STATES = ["active", "acknowledged", "latched"] as const;
export const CONSCIOUSNESS = ["alert", "confused", "voice", "pain", "unresponsive"] as const;
export type Consciousness = (typeof CONSCIOUSNESS)[number];

export interface AlarmEntry {
  readonly number: number;
  /** With its prefix, value and limit, as in `** SpO2 84 < 90`. */
  readonly text: string;
  readonly priority: Priority;
  readonly technical: boolean;
  readonly state: (typeof ALARM_STATES)[number];
  /** Gateway clock, Unix ms. */
  readonly sinceMs: number;
}

export interface LimitsEntry {
  /** The row of the code table, for commands. */
  readonly quantity: number;
  readonly display: string;
  readonly unit: string | null;
  readonly low: number | null;
  readonly high: number | null;
  readonly extremeLow: number | null;
  readonly extremeHigh: number | null;
  readonly delayS: number;
  readonly hysteresis: number;
}

export type ScoreEntry =
  | { readonly is: "refused"; readonly why: (typeof SCORE_REFUSALS)[number] }
  | { readonly is: "sum"; readonly total: number; readonly missing: readonly string[] };

/** What the gateway's watch says of a patient, whole. */
export interface Standing {
  readonly type: "standing";
  /** The core has not made it durable yet. */
  readonly provisional: boolean;
  readonly patient: string;
  readonly atMs: number;
  readonly pausedUntilMs: number | null;
  readonly alarms: readonly AlarmEntry[];
  readonly score: ScoreEntry;
  readonly category: Category | null;
  readonly oxygen: boolean | null;
  readonly consciousness: Consciousness | null;
  readonly limits: readonly LimitsEntry[];
}

/** Whether the patient's gateway sent a heartbeat a moment ago. */
export interface ContactEntry {
  readonly type: "contact";
  readonly patient: string;
  readonly heard: boolean;
  /** How the policy stood by which it seals, by its newest heartbeat; null before the first. */
  readonly policy: PolicyState | null;
}

/** What a gateway says of the policy by which it seals. */
export interface PolicyState {
  /** Too old for anybody new to come in. */
  readonly stale: boolean;
  /** The gateway's clock was set back, and it has not heard of the ledger since. */
  readonly clockUnknown: boolean;
  /** One party seals the ledger that it follows. */
  readonly oneSealer: boolean;
}

export const AUDIT_KINDS = [
  "login",
  "look",
  "export",
  "emergency",
  "emergency_opened",
  "emergency_failed",
  "frequent",
  "granted",
  "ended",
  "emergency_seen",
  "suspended",
  "reinstated",
  "command",
  "command_done",
  "command_failed",
  "offer",
  "offer_done",
  "offer_failed",
  "log_read",
] as const;

/** A line of the list of who looked and what changed. */
export interface Audit {
  readonly type: "audit";
  readonly id: number;
  readonly atMs: number;
  readonly what: (typeof AUDIT_KINDS)[number];
  readonly user: string | null;
  readonly patient: string | null;
  /** The beginning of a pseudonym or a relationship. */
  readonly about: string | null;
  readonly text: string | null;
  readonly untilMs: number | null;
  readonly count: number | null;
}

export type Frame = Hello | Reading | Provisional | Chain | Link | Access | Ledger | Standing | ContactEntry | Audit;

/** Why a frame was refused; `where` is a path into the object, never a value out of it. */
export type FrameReason = "too-long" | "not-json" | "unknown-type" | "bad-field";

export class FrameError extends Error {
  constructor(
    readonly reason: FrameReason,
    readonly where: string,
  ) {
    super(`${reason} at ${where}`);
    this.name = "FrameError";
  }
}

/** A full chunk of 8,192 samples is under 60 kB as text and 64 beds under 10 kB; 1 MiB leaves room and bounds the parse. */
export const FRAME_CHARS_MAX = 1 << 20;
/** As `protocol::reading::SAMPLES_MAX`. */
export const SAMPLES_MAX = 8192;
/** As `protocol::id::NAME_BYTES_MAX`; the names are ASCII. */
const NAME_CHARS_MAX = 64;
/** Display texts and bed names: what fits a banner. */
const TEXT_CHARS_MAX = 128;
/** A reason of at most 1,000 bytes, or a refusal's sentence. */
const AUDIT_CHARS_MAX = 1024;
/** A central station shows 16 to 32 beds; twice that scrolls, more is another page. */
export const BEDS_MAX = 64;
/** The value that stands for "no sample" in a waveform chunk. */
const SAMPLE_MISSING = -32768;

/** As `protocol::alarm::ALARMS_MAX`. */
const ALARMS_MAX = 64;
/** As `protocol::alarm::LIMITS_MAX`. */
const LIMITS_MAX = 32;
const SCORE_REFUSALS = ["category_unknown", "not_adult", "pregnant"] as const;
const SCORE_MAX = 20;

type Fields = Record<string, unknown>;

function bad(where: string): never {
  throw new FrameError("bad-field", where);
}

function fields(value: unknown, where: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) bad(where);
  return value as Fields;
}

function finite(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) bad(where);
  return value;
}

function whole(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) bad(where);
  return value;
}

function text(value: unknown, where: string, max: number): string {
  if (typeof value !== "string" || value.length === 0 || value.length > max) bad(where);
  return value;
}

function oneOf<T extends string>(value: unknown, where: string, allowed: readonly T[]): T {
  const found = allowed.find((word) => word === value);
  return found ?? bad(where);
}

function orNull<T>(value: unknown, check: (value: unknown) => T): T | null {
  return value === null || value === undefined ? null : check(value);
}

function patientId(value: unknown, where: string): string {
  if (typeof value !== "string" || !/^[0-9a-f]{32}$/.test(value)) bad(where);
  return value;
}

function parseHello(object: Fields): Hello {
  if (!Array.isArray(object["beds"]) || object["beds"].length > BEDS_MAX) bad("beds");
  const beds = object["beds"].map((entry: unknown, i): BedEntry => {
    const bed = fields(entry, `beds[${i}]`);
    return {
      bed: text(bed["bed"], `beds[${i}].bed`, TEXT_CHARS_MAX),
      patient: patientId(bed["patient"], `beds[${i}].patient`),
      category: oneOf(bed["category"], `beds[${i}].category`, CATEGORIES),
    };
  });
  return { type: "hello", serverMs: finite(object["server_ms"], "server_ms"), next: whole(object["next"], "next"), beds };
}

function parseCode(value: unknown): Code {
  const code = fields(value, "code");
  return {
    name: text(code["name"], "code.name", NAME_CHARS_MAX),
    loinc: orNull(code["loinc"], (v) => text(v, "code.loinc", NAME_CHARS_MAX)),
    mdc: orNull(code["mdc"], (v) => whole(v, "code.mdc")),
    display: text(code["display"], "code.display", TEXT_CHARS_MAX),
    unit: orNull(code["unit"], (v) => text(v, "code.unit", NAME_CHARS_MAX)),
  };
}

function parseWave(value: unknown): Wave {
  const wave = fields(value, "wave");
  const periodNs = whole(wave["period_ns"], "wave.period_ns");
  if (periodNs === 0) bad("wave.period_ns");
  const scale = finite(wave["scale"], "wave.scale");
  const offset = finite(wave["offset"], "wave.offset");
  const samples: unknown = wave["samples"];
  if (!Array.isArray(samples) || samples.length === 0 || samples.length > SAMPLES_MAX) bad("wave.samples");
  const values = new Float32Array(samples.length);
  for (let i = 0; i < samples.length; i += 1) {
    const sample: unknown = samples[i];
    if (typeof sample !== "number" || !Number.isInteger(sample) || sample < -32768 || sample > 32767) {
      bad(`wave.samples[${i}]`);
    }
    values[i] = sample === SAMPLE_MISSING ? Number.NaN : offset + scale * sample;
  }
  return { t0Ms: finite(wave["t0_us"], "wave.t0_us") / 1000, periodMs: periodNs / 1e6, values };
}

function parseValue(object: Fields): Reading["value"] {
  const given = ["numeric", "wave", "event"].filter((key) => object[key] !== undefined && object[key] !== null);
  if (given.length !== 1) bad("numeric|wave|event");
  if (given[0] === "numeric") return { kind: "numeric", numeric: finite(object["numeric"], "numeric") };
  if (given[0] === "wave") return { kind: "wave", wave: parseWave(object["wave"]) };
  if (object["event"] !== true) bad("event");
  return { kind: "event" };
}

function parseReading(object: Fields): Reading {
  return { type: "reading", n: whole(object["n"], "n"), ahead: object["ahead"] === true, ...parseMeasured(object) };
}

function parseMeasured(object: Fields): Omit<Reading, "type" | "n" | "ahead"> {
  return {
    patient: patientId(object["patient"], "patient"),
    dataClass: oneOf(object["class"], "class", DATA_CLASSES),
    segment: whole(object["segment"], "segment"),
    device: text(object["device"], "device", NAME_CHARS_MAX),
    stream: text(object["stream"], "stream", NAME_CHARS_MAX),
    seq: orNull(object["seq"], (v) => whole(v, "seq")),
    sensorMs: orNull(object["sensor_us"], (v) => finite(v, "sensor_us") / 1000),
    gatewayMs: finite(object["gateway_us"], "gateway_us") / 1000,
    flags: whole(object["flags"], "flags"),
    openedMs: finite(object["opened_ms"], "opened_ms"),
    code: parseCode(object["code"]),
    value: parseValue(object),
  };
}

function parseTold(value: unknown): Told {
  const told = fields(value, "told");
  const [first, last] = [whole(told["first"], "told.first"), whole(told["last"], "told.last")];
  if (first > last) bad("told");
  return {
    why: oneOf(told["why"], "told.why", ["expired", "damaged"] as const),
    first,
    last,
    fromMs: orNull(told["from_ms"], (v) => finite(v, "told.from_ms")),
    toMs: orNull(told["to_ms"], (v) => finite(v, "told.to_ms")),
  };
}

function parseGap(value: unknown): readonly [number, number] {
  if (!Array.isArray(value) || value.length !== 2) bad("gap");
  const [first, last] = [whole(value[0], "gap[0]"), whole(value[1], "gap[1]")];
  if (first > last) bad("gap");
  return [first, last];
}

function parseChain(object: Fields): Chain {
  return {
    type: "chain",
    patient: patientId(object["patient"], "patient"),
    dataClass: oneOf(object["class"], "class", DATA_CLASSES),
    verified: orNull(object["verified"], (v) => whole(v, "verified")),
    gap: orNull(object["gap"], parseGap),
    told: orNull(object["told"], parseTold),
  };
}

function parseBasis(object: Fields): Basis {
  const seconds = (key: string): number => whole(object[key], key) * 1000;
  const basis = oneOf(object["basis"], "basis", ["unknown", "none", "pending", "consent", "emergency", "ended"] as const);
  switch (basis) {
    case "unknown":
    case "none":
      return { basis };
    case "pending":
      return { basis, fromMs: seconds("from") };
    case "consent":
    case "emergency":
      return { basis, untilMs: seconds("until") };
    case "ended":
      return { basis, atMs: seconds("at"), why: oneOf(object["why"], "why", ENDS) };
  }
}

function parseLedger(object: Fields): Ledger {
  return {
    type: "ledger",
    state: oneOf(object["state"], "state", ["starting", "following", "away"] as const),
    sinceMs: orNull(object["since_ms"], (v) => finite(v, "since_ms")),
    breakGlass: oneOf(object["break_glass"], "break_glass", ["no_key", "refused", "ready"] as const),
  };
}

function list(value: unknown, where: string, max: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length > max) bad(where);
  return value as readonly unknown[];
}

function parseAlarm(value: unknown, i: number): AlarmEntry {
  const where = `alarms[${i}]`;
  const alarm = fields(value, where);
  return {
    number: whole(alarm["number"], `${where}.number`),
    text: text(alarm["text"], `${where}.text`, TEXT_CHARS_MAX),
    priority: oneOf(alarm["priority"], `${where}.priority`, PRIORITIES),
    technical: alarm["technical"] === true,
    state: oneOf(alarm["state"], `${where}.state`, ALARM_STATES),
    sinceMs: finite(alarm["since_ms"], `${where}.since_ms`),
  };
}

function parseLimits(value: unknown, i: number): LimitsEntry {
  const where = `limits[${i}]`;
  const limits = fields(value, where);
  const bound = (key: string): number | null => orNull(limits[key], (v) => finite(v, `${where}.${key}`));
  return {
    quantity: whole(limits["quantity"], `${where}.quantity`),
    display: text(limits["display"], `${where}.display`, TEXT_CHARS_MAX),
    unit: orNull(limits["unit"], (v) => text(v, `${where}.unit`, NAME_CHARS_MAX)),
    low: bound("low"),
    high: bound("high"),
    extremeLow: bound("extreme_low"),
    extremeHigh: bound("extreme_high"),
    delayS: whole(limits["delay_s"], `${where}.delay_s`),
    hysteresis: finite(limits["hysteresis"], `${where}.hysteresis`),
  };
}

function parseScore(value: unknown): ScoreEntry {
  const score = fields(value, "score");
  if (score["refused"] !== undefined) return { is: "refused", why: oneOf(score["refused"], "score.refused", SCORE_REFUSALS) };
  const total = whole(score["total"], "score.total");
  if (total > SCORE_MAX) bad("score.total");
  const missing = list(score["missing"], "score.missing", ALARMS_MAX).map((v, i) => text(v, `score.missing[${i}]`, NAME_CHARS_MAX));
  return { is: "sum", total, missing };
}

function parseStanding(object: Fields): Standing {
  const entered = (key: string): unknown => orNull(object[key], (value) => list(value, key, 2)[0]);
  const oxygen = entered("oxygen");
  if (oxygen !== null && typeof oxygen !== "boolean") bad("oxygen");
  return {
    type: "standing",
    provisional: object["provisional"] === true,
    patient: patientId(object["patient"], "patient"),
    atMs: finite(object["at_ms"], "at_ms"),
    pausedUntilMs: orNull(object["paused_until_ms"], (v) => finite(v, "paused_until_ms")),
    alarms: list(object["alarms"], "alarms", ALARMS_MAX).map(parseAlarm),
    score: parseScore(object["score"]),
    category: orNull(object["category"], (v) => oneOf(v, "category", CATEGORIES)),
    oxygen: oxygen,
    consciousness: orNull(entered("consciousness"), (v) => oneOf(v, "consciousness", CONSCIOUSNESS)),
    limits: list(object["limits"], "limits", LIMITS_MAX).map(parseLimits),
  };
}

function parseContact(object: Fields): ContactEntry {
  if (typeof object["heard"] !== "boolean") bad("heard");
  return {
    type: "contact",
    patient: patientId(object["patient"], "patient"),
    heard: object["heard"],
    policy: orNull(object["policy"], parsePolicyState),
  };
}

function parsePolicyState(value: unknown): PolicyState {
  const state = fields(value, "policy");
  const flag = (name: string): boolean => {
    const is = state[name];
    return typeof is === "boolean" ? is : bad(`policy.${name}`);
  };
  return { stale: flag("stale"), clockUnknown: flag("clock_unknown"), oneSealer: flag("one_sealer") };
}

function parseAudit(object: Fields): Audit {
  return {
    type: "audit",
    id: whole(object["id"], "id"),
    atMs: finite(object["at_ms"], "at_ms"),
    what: oneOf(object["what"], "what", AUDIT_KINDS),
    user: orNull(object["user"], (v) => text(v, "user", TEXT_CHARS_MAX)),
    patient: orNull(object["patient"], (v) => patientId(v, "patient")),
    about: orNull(object["about"], (v) => text(v, "about", NAME_CHARS_MAX)),
    text: orNull(object["text"], (v) => text(v, "text", AUDIT_CHARS_MAX)),
    untilMs: orNull(object["until"], (v) => whole(v, "until") * 1000),
    count: orNull(object["count"], (v) => whole(v, "count")),
  };
}

function parseObject(frame: string): Fields {
  if (frame.length > FRAME_CHARS_MAX) throw new FrameError("too-long", "frame");
  let value: unknown;
  try {
    value = JSON.parse(frame);
  } catch {
    throw new FrameError("not-json", "frame");
  }
  return fields(value, "frame");
}

/** Reads one line of the history. Throws as {@link parseFrame}. */
export function parsePast(line: string): Past {
  const object = parseObject(line);
  switch (object["type"]) {
    case "past":
      return { type: "past", ...parseMeasured(object) };
    case "progress":
      return { type: "progress", atMs: finite(object["at_ms"], "at_ms") };
    case "end":
      return {
        type: "end",
        readings: whole(object["readings"], "readings"),
        refused: whole(object["refused"], "refused"),
        gap: orNull(object["gap"], parseGap),
        told: orNull(object["told"], parseTold),
      };
    case "failed":
      return { type: "failed", error: text(object["error"], "error", TEXT_CHARS_MAX) };
    default:
      throw new FrameError("unknown-type", "type");
  }
}

/** Reads one text frame. Throws {@link FrameError}, and nothing else, on a frame that does not keep to the interface. */
export function parseFrame(frame: string): Frame {
  const object = parseObject(frame);
  switch (object["type"]) {
    case "hello":
      return parseHello(object);
    case "reading":
      return parseReading(object);
    case "provisional":
      return { type: "provisional", ...parseMeasured(object) };
    case "chain":
      return parseChain(object);
    case "link":
      return { type: "link", core: oneOf(object["core"], "core", ["up", "down"] as const) };
    case "access":
      return { type: "access", patient: patientId(object["patient"], "patient"), basis: parseBasis(object) };
    case "ledger":
      return parseLedger(object);
    case "standing":
      return parseStanding(object);
    case "contact":
      return parseContact(object);
    case "audit":
      return parseAudit(object);
    default:
      throw new FrameError("unknown-type", "type");
  }
}
