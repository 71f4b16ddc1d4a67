/**
 * All that the page knows: beds with their traces, numerics, events and chains. Frames go in with the time, views read.
 *
 * A reading is *live* when the gateway received it a moment ago by the feed's clock; only live readings move the sweep's
 * clock and the measured delay. All others are backlog: they find their place in trends and events, and in the sweep
 * only where it still shows their time.
 */
import { ClockOffset, Delays } from "./latency";
import { NumericSeries, measuredAtMs } from "./numeric";
import { Playout } from "./playout";
import { BEDS_MAX, FrameError, parseFrame } from "./protocol";
import type {
  Access,
  Audit,
  Basis,
  Category,
  Chain,
  ContactEntry,
  DataClass,
  Frame,
  FrameReason,
  Hello,
  Ledger,
  PolicyState,
  Provisional,
  Reading,
  Standing,
  Told,
  Wave,
} from "./protocol";
import { present } from "./quantity";
import type { Presentation } from "./quantity";
import { SWEEP_MS_MAX, SampleWindow } from "./samples";

/** Two dozen numerics are every measurement of an intensive-care bed; a device that invents names must not grow the page. */
export const NUMERICS_MAX = 24;
/** Twelve leads; a lane each would be all of a screen. */
export const CHANNELS_MAX = 12;
/** Devices with waveforms at one bed. */
export const DEVICES_MAX = 8;
/** A bed's list: an eventful shift. */
export const EVENTS_MAX = 100;
/** As many lines as the feed keeps. */
export const AUDIT_MAX = 200;
/** A patient whom the feed's configuration does not name. */
export const NO_BED = "No bed";
/** The same, where it is break-glass that shows them. */
export const EMERGENCY_BED = "Emergency — unknown bed";
/** Older than this at the feed is backlog: above any network's hiccup, half of what counts as lost. */
export const LIVE_MS_MAX = 5_000;
/** Numbers remembered of readings that came ahead of others: more than a ward's live ones while a backlog drains. */
export const AHEAD_MAX = 65_536;
/** For how long "backlog arriving" stays after the last late reading. */
export const BACKLOG_SHOWN_MS = 3_000;

export interface Channel {
  readonly key: string;
  readonly device: string;
  readonly presentation: Presentation;
  readonly unit: string | null;
  readonly playout: Playout;
  periodMs: number;
  samples: SampleWindow;
  /** Time of the last live chunk with a value in it, by the page's clock. */
  liveMs: number;
  /** Raised whenever what the sweep has passed changed: late samples, a new offset. */
  redraw: number;
}

export interface BedEvent {
  /** The page's number for it: the key in lists. */
  readonly id: number;
  readonly display: string;
  readonly dataClass: DataClass;
  /** By the feed's clock. */
  readonly atMs: number;
  readonly late: boolean;
}

export interface ChainState {
  readonly verified: number | null;
  readonly gap: readonly [number, number] | null;
  readonly told: Told | null;
}

export interface Bed {
  readonly patient: string;
  name: string;
  category: Category;
  readonly channels: Map<string, Channel>;
  readonly numerics: Map<string, NumericSeries>;
  readonly devices: Map<string, Playout>;
  /** Newest first, by time. */
  readonly events: BedEvent[];
  readonly chains: Map<DataClass, ChainState>;
  readonly delays: Delays;
  /** What access rests on; null where the feed follows no ledger. */
  access: Basis | null;
  /** What the gateway's watch says; null until it has said something. */
  standing: Standing | null;
  /** Whether the gateway is heard; null until that is known. */
  heard: boolean | null;
  /** How the policy stands by which the gateway seals; null until that is known. */
  policy: PolicyState | null;
  /** When a live reading last came, page's clock; −∞ for never. */
  liveMs: number;
  /** When backlog last came, page's clock; −∞ for never. */
  backlogMs: number;
  /** Raised by all that a tile shows besides its traces. */
  revision: number;
}

export type RefusedReason = FrameReason | "beds-full" | "numerics-full" | "channels-full" | "samples-refused";

function newBed(patient: string, name: string, category: Category): Bed {
  return {
    patient,
    name,
    category,
    channels: new Map(),
    numerics: new Map(),
    devices: new Map(),
    events: [],
    chains: new Map(),
    delays: new Delays(),
    access: null,
    standing: null,
    heard: null,
    policy: null,
    liveMs: -Infinity,
    backlogMs: -Infinity,
    revision: 0,
  };
}

export class Ward {
  /** By patient, in the order in which the feed lists them. */
  readonly beds = new Map<string, Bed>();
  readonly clock = new ClockOffset();
  readonly delays = new Delays();
  readonly refused = new Map<RefusedReason, number>();
  coreUp = true;
  /** Null where the feed follows none. */
  ledger: Ledger | null = null;
  /** Newest first. */
  readonly audit: Audit[] = [];
  /** Raised when beds come or go, or the link changes. */
  revision = 0;
  /** Readings that the feed had given up before the page returned. */
  missed = 0;
  private lastN: number | null = null;
  /** Beyond `lastN`, oldest first: live readings that came ahead of those of a backlog. */
  private readonly ahead = new Set<number>();
  private eventCount = 0;

  /** `from=` of the next connection; null for the first. */
  get resumeFrom(): number | null {
    return this.lastN === null ? null : this.lastN + 1;
  }

  /** The feed's clock, Unix ms. */
  feedNowMs(nowMs: number): number {
    return nowMs + this.clock.offsetMs;
  }

  /** Takes a text frame. Returns the reading when it was one and is new, else null; never throws on bad input. */
  receive(text: string, nowMs: number): Reading | null {
    let frame: Frame;
    try {
      frame = parseFrame(text);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.refuse(error.reason);
      return null;
    }
    return this.accept(frame, nowMs);
  }

  private accept(frame: Frame, nowMs: number): Reading | null {
    switch (frame.type) {
      case "hello":
        this.acceptHello(frame, nowMs);
        return null;
      case "chain":
        this.acceptChain(frame);
        return null;
      case "link":
        this.coreUp = frame.core === "up";
        if (this.coreUp) this.withdraw();
        this.revision += 1;
        return null;
      case "access":
        this.acceptAccess(frame);
        return null;
      case "ledger":
        this.ledger = frame;
        this.revision += 1;
        return null;
      case "standing":
        this.acceptStanding(frame);
        return null;
      case "contact":
        this.acceptContact(frame);
        return null;
      case "audit":
        this.acceptAudit(frame);
        return null;
      case "provisional":
        this.acceptProvisional(frame);
        return null;
      case "reading":
        return this.acceptReading(frame, nowMs) ? frame : null;
    }
  }

  private acceptHello(hello: Hello, nowMs: number): void {
    this.clock.observe(nowMs, hello.serverMs);
    // The feed counts from an earlier number than we have seen: it began anew.
    if (this.lastN !== null && hello.next <= this.lastN) this.lastN = null;
    if ([...this.ahead].some((n) => n >= hello.next)) this.ahead.clear();
    // The feed says all of it again.
    this.ledger = null;
    this.audit.length = 0;
    const listed = new Set(hello.beds.map((entry) => entry.patient));
    for (const patient of this.beds.keys()) if (!listed.has(patient)) this.beds.delete(patient);
    const known = new Map(this.beds);
    this.beds.clear();
    for (const entry of hello.beds) {
      const bed = known.get(entry.patient) ?? newBed(entry.patient, entry.bed, entry.category);
      bed.name = entry.bed;
      bed.category = entry.category;
      bed.access = null;
      bed.heard = null;
      bed.policy = null;
      bed.revision += 1;
      this.beds.set(entry.patient, bed);
    }
    this.revision += 1;
  }

  /** When any bed last had a live reading, page's clock; −∞ for never. */
  get liveMs(): number {
    return Math.max(-Infinity, ...[...this.beds.values()].map((bed) => bed.liveMs));
  }

  private bedOf(patient: string): Bed | null {
    const known = this.beds.get(patient);
    if (known !== undefined) return known;
    if (this.beds.size >= BEDS_MAX) {
      this.refuse("beds-full");
      return null;
    }
    const bed = newBed(patient, NO_BED, "unknown");
    this.beds.set(patient, bed);
    this.revision += 1;
    return bed;
  }

  private acceptChain(chain: Chain): void {
    const bed = this.bedOf(chain.patient);
    if (bed === null) return;
    bed.chains.set(chain.dataClass, { verified: chain.verified, gap: chain.gap, told: chain.told });
    bed.revision += 1;
  }

  private acceptAccess(access: Access): void {
    const bed = this.bedOf(access.patient);
    if (bed === null) return;
    bed.access = access.basis;
    if (bed.name === NO_BED && access.basis.basis === "emergency") bed.name = EMERGENCY_BED;
    bed.revision += 1;
  }

  /** What the feed tells is the newest, whole: there is nothing to merge. */
  private acceptStanding(standing: Standing): void {
    const bed = this.bedOf(standing.patient);
    if (bed === null) return;
    bed.standing = standing;
    if (bed.category === "unknown" && standing.category !== null) bed.category = standing.category;
    bed.revision += 1;
  }

  private acceptContact(contact: ContactEntry): void {
    const bed = this.bedOf(contact.patient);
    if (bed === null) return;
    bed.heard = contact.heard;
    bed.policy = contact.policy;
    bed.revision += 1;
  }

  private acceptAudit(line: Audit): void {
    this.audit.unshift(line);
    if (this.audit.length > AUDIT_MAX) this.audit.length = AUDIT_MAX;
    this.revision += 1;
  }

  /** Whether it is none that came before. */
  private number({ n, ahead }: Reading): boolean {
    if (this.lastN !== null && n <= this.lastN) return false;
    const isNew = !this.ahead.has(n);
    if (ahead) {
      this.ahead.add(n);
      for (const oldest of this.ahead) {
        if (this.ahead.size <= AHEAD_MAX) break;
        this.ahead.delete(oldest);
      }
      return isNew;
    }
    let between = 0;
    for (const one of this.ahead) {
      if (one < n) between += 1;
      if (one <= n) this.ahead.delete(one);
    }
    if (this.lastN !== null) this.missed += n - this.lastN - 1 - between;
    this.lastN = n;
    return isNew;
  }

  private acceptReading(reading: Reading, nowMs: number): boolean {
    if (!this.number(reading)) return false;
    this.clock.observe(nowMs, reading.openedMs);
    const bed = this.bedOf(reading.patient);
    if (bed === null) return true;
    const feedNowMs = this.feedNowMs(nowMs);
    const live = feedNowMs - reading.gatewayMs <= LIVE_MS_MAX;
    if (live) {
      bed.liveMs = nowMs;
      this.observeDelay(bed, reading, feedNowMs);
    } else bed.backlogMs = nowMs;
    const { value } = reading;
    switch (value.kind) {
      case "numeric":
        this.acceptNumeric(bed, reading, value.numeric, nowMs, live);
        break;
      case "wave":
        this.acceptWave(bed, reading, value.wave, nowMs, live);
        break;
      case "event":
        this.acceptEvent(bed, reading, live);
        break;
    }
    return true;
  }

  /** Numerics alone, and where a durable one came before: what is new, events and traces can wait for a sync. */
  private acceptProvisional(frame: Provisional): void {
    const bed = this.beds.get(frame.patient);
    const series = bed?.numerics.get(`${frame.device}/${frame.stream}`);
    if (bed === undefined || series === undefined || frame.value.kind !== "numeric") return;
    series.foresee(measuredAtMs(frame.sensorMs, frame.gatewayMs), frame.value.numeric);
    bed.revision += 1;
  }

  /** The feed's connection to the core is a new one: what was provisional before comes as a reading, or never was. */
  private withdraw(): void {
    for (const bed of this.beds.values()) {
      for (const series of bed.numerics.values()) series.withdraw();
      bed.revision += 1;
    }
  }

  /** From the measurement (a chunk: from its last sample) to here. A sensor whose clock runs ahead counts from the gateway. */
  private observeDelay(bed: Bed, reading: Reading, feedNowMs: number): void {
    const { value } = reading;
    const chunkEndMs = value.kind === "wave" ? value.wave.t0Ms + value.wave.values.length * value.wave.periodMs : null;
    const measuredMs = measuredAtMs(chunkEndMs ?? reading.sensorMs, reading.gatewayMs);
    const delayMs = Math.max(0, feedNowMs - measuredMs);
    bed.delays.add(delayMs);
    this.delays.add(delayMs);
  }

  private acceptNumeric(bed: Bed, reading: Reading, value: number, nowMs: number, live: boolean): void {
    const key = `${reading.device}/${reading.stream}`;
    let series = bed.numerics.get(key);
    if (series === undefined) {
      if (bed.numerics.size >= NUMERICS_MAX) {
        this.refuse("numerics-full");
        return;
      }
      series = new NumericSeries(key, reading.device, reading.code);
      bed.numerics.set(key, series);
    }
    series.add(measuredAtMs(reading.sensorMs, reading.gatewayMs), value, nowMs, live);
    bed.revision += 1;
  }

  private playoutOf(bed: Bed, device: string): Playout | null {
    const known = bed.devices.get(device);
    if (known !== undefined) return known;
    if (bed.devices.size >= DEVICES_MAX) return null;
    const playout = new Playout();
    bed.devices.set(device, playout);
    return playout;
  }

  private channelOf(bed: Bed, reading: Reading, wave: Wave): Channel | null {
    const key = `${reading.device}/${reading.stream}`;
    const known = bed.channels.get(key);
    if (known !== undefined) {
      if (known.periodMs !== wave.periodMs) {
        known.periodMs = wave.periodMs;
        known.samples = new SampleWindow(wave.periodMs);
        known.redraw += 1;
      }
      return known;
    }
    const playout = bed.channels.size >= CHANNELS_MAX ? null : this.playoutOf(bed, reading.device);
    if (playout === null) {
      this.refuse("channels-full");
      return null;
    }
    const channel: Channel = {
      key,
      device: reading.device,
      presentation: present(reading.code),
      unit: reading.code.unit,
      playout,
      periodMs: wave.periodMs,
      samples: new SampleWindow(wave.periodMs),
      liveMs: -Infinity,
      redraw: 0,
    };
    bed.channels.set(key, channel);
    bed.revision += 1;
    return channel;
  }

  private acceptWave(bed: Bed, reading: Reading, wave: Wave, nowMs: number, live: boolean): void {
    const channel = this.channelOf(bed, reading, wave);
    if (channel === null) return;
    if (live) {
      if (wave.values.some((value) => !Number.isNaN(value))) channel.liveMs = nowMs;
      const observation = channel.playout.observe(nowMs, wave.t0Ms);
      if (observation === "ahead") return;
      if (observation !== "kept") this.movePlayout(bed, channel.playout, observation === "anchored");
    }
    const { offsetMs } = channel.playout;
    if (offsetMs === null) return;
    const endMs = wave.t0Ms + wave.values.length * wave.periodMs + offsetMs;
    if (endMs < nowMs - SWEEP_MS_MAX) return;
    const placement = channel.samples.add(wave);
    if (placement === "refused") this.refuse("samples-refused");
    if (placement === "inserted" || wave.t0Ms + offsetMs < nowMs) channel.redraw += 1;
  }

  private movePlayout(bed: Bed, playout: Playout, anchored: boolean): void {
    for (const channel of bed.channels.values()) {
      if (channel.playout !== playout) continue;
      if (anchored) channel.samples.clear();
      channel.redraw += 1;
    }
  }

  private acceptEvent(bed: Bed, reading: Reading, live: boolean): void {
    this.eventCount += 1;
    const event: BedEvent = {
      id: this.eventCount,
      display: reading.code.display,
      dataClass: reading.dataClass,
      atMs: measuredAtMs(reading.sensorMs, reading.gatewayMs),
      late: !live,
    };
    const at = bed.events.findIndex((other) => other.atMs <= event.atMs);
    bed.events.splice(at === -1 ? bed.events.length : at, 0, event);
    if (bed.events.length > EVENTS_MAX) bed.events.length = EVENTS_MAX;
    bed.revision += 1;
  }

  private refuse(reason: RefusedReason): void {
    this.refused.set(reason, (this.refused.get(reason) ?? 0) + 1);
  }
}
