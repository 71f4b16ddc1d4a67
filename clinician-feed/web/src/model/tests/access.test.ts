import { describe, expect, it } from "vitest";
import { accessText, leftText, whenText } from "../access";
import { auditText, isNotable } from "../audit";
import { answerOf, faultOf } from "../emergency";
import type { EmergencyRequest } from "../emergency";
import { parseFrame } from "../protocol";
import type { Audit } from "../protocol";
import { EMERGENCY_BED, NO_BED, Ward } from "../ward";
import { OTHER, PATIENT, T0, hello, numeric } from "./frames";

/** By the reader's own clock, as the page shows it. */
const NOW = new Date(2026, 10, 25, 10, 31, 0).getTime();
const access = (fields: Record<string, unknown>, patient = PATIENT): string => JSON.stringify({ type: "access", patient, ...fields });

function line(over: Partial<Audit>): Audit {
  return { type: "audit", id: 0, atMs: NOW, what: "login", user: "nurse", patient: null, about: null, text: null, untilMs: null, count: null, ...over };
}

function refusal(frame: string): string {
  try {
    parseFrame(frame);
  } catch (error) {
    return error instanceof Error ? error.message : "not an error";
  }
  return "accepted";
}

describe("accessText", () => {
  it("says until when and why not any more", () => {
    const december = new Date(2026, 11, 3, 9, 0).getTime();
    expect(accessText({ basis: "consent", untilMs: december }, NOW)).toEqual({ text: "Consent until 3 Dec", state: "consent" });
    expect(accessText({ basis: "consent", untilMs: NOW + 3_600_000 }, NOW)?.text).toBe("Consent until 11:31");
    expect(accessText({ basis: "emergency", untilMs: NOW + 1_752_000 }, NOW)).toEqual({ text: "Emergency access, 00:29:12 left", state: "emergency" });
    expect(accessText({ basis: "ended", atMs: NOW, why: "revoked" }, NOW + 60_000)).toEqual({
      text: "Access ended 10:31: revoked by the patient",
      state: "ended",
    });
    expect(accessText({ basis: "pending", fromMs: december }, NOW)?.text).toBe("Consent from 3 Dec");
    expect(accessText({ basis: "none" }, NOW)?.state).toBe("none");
    expect([accessText({ basis: "unknown" }, NOW), accessText(null, NOW)]).toEqual([null, null]);
  });

  it("names the day where it is another one, the year where it is another", () => {
    const hour = 3_600_000;
    expect(whenText(NOW + 14 * hour, NOW)).toBe("26 Nov 00:31");
    expect(whenText(NOW - 11 * hour, NOW)).toBe("24 Nov 23:31");
    expect(whenText(new Date(2027, 0, 2).getTime(), NOW)).toBe("2 Jan 2027");
    expect([leftText(-5), leftText(999), leftText(4 * hour), leftText(3_599_999)]).toEqual(["00:00:00", "00:00:00", "04:00:00", "00:59:59"]);
  });
});

describe("parseFrame: oversight", () => {
  it("reads the interface's own examples", () => {
    expect(parseFrame(access({ basis: "consent", until: 1_796_000_000 }))).toEqual({
      type: "access",
      patient: PATIENT,
      basis: { basis: "consent", untilMs: 1_796_000_000_000 },
    });
    expect(parseFrame(access({ basis: "ended", at: 5, why: "emergency_over" }))).toMatchObject({ basis: { atMs: 5000, why: "emergency_over" } });
    expect(parseFrame('{"type":"ledger","state":"away","since_ms":9,"break_glass":"ready"}')).toEqual({
      type: "ledger",
      state: "away",
      sinceMs: 9,
      breakGlass: "ready",
    });
    expect(parseFrame('{"type":"audit","id":3,"at_ms":4,"what":"look","user":"nurse","count":2}')).toMatchObject({ user: "nurse", count: 2, text: null });
  });

  it("names where a frame is wrong", () => {
    expect(refusal(access({ basis: "what" }))).toBe("bad-field at basis");
    expect(refusal(access({ basis: "consent" }))).toBe("bad-field at until");
    expect(refusal(access({ basis: "ended", at: 5, why: "x" }))).toBe("bad-field at why");
    expect(refusal(access({ basis: "none" }, "x"))).toBe("bad-field at patient");
    expect(refusal('{"type":"ledger","state":"up","break_glass":"ready"}')).toBe("bad-field at state");
    expect(refusal('{"type":"ledger","state":"away","break_glass":true}')).toBe("bad-field at break_glass");
    expect(refusal('{"type":"audit","id":3,"at_ms":4,"what":"x"}')).toBe("bad-field at what");
    expect(refusal(`{"type":"audit","id":3,"at_ms":4,"what":"look","user":"${"x".repeat(129)}"}`)).toBe("bad-field at user");
  });
});

describe("Ward: oversight", () => {
  it("keeps what access rests on and forgets it with the connection", () => {
    const ward = new Ward();
    ward.receive(hello(1), T0);
    expect(ward.beds.get(PATIENT)?.access).toBeNull();
    ward.receive('{"type":"ledger","state":"following","break_glass":"no_key"}', T0);
    ward.receive(access({ basis: "consent", until: 5 }), T0);
    ward.receive('{"type":"audit","id":0,"at_ms":4,"what":"login","user":"a"}', T0);
    ward.receive('{"type":"audit","id":1,"at_ms":5,"what":"login","user":"b"}', T0);
    expect(ward.beds.get(PATIENT)?.access).toEqual({ basis: "consent", untilMs: 5000 });
    expect(ward.audit.map(({ user }) => user)).toEqual(["b", "a"]);
    ward.receive(hello(1), T0 + 1000);
    expect([ward.ledger, ward.audit.length, ward.beds.get(PATIENT)?.access]).toEqual([null, 0, null]);
  });

  it("names a patient whom break-glass shows, also when it is over", () => {
    const ward = new Ward();
    ward.receive(hello(1), T0);
    ward.receive(numeric(1, T0, 70, { patient: OTHER }), T0);
    expect(ward.beds.get(OTHER)?.name).toBe(NO_BED);
    ward.receive(access({ basis: "emergency", until: 5 }, OTHER), T0);
    ward.receive(access({ basis: "emergency", until: 5 }), T0);
    ward.receive(access({ basis: "ended", at: 5, why: "emergency_over" }, OTHER), T0);
    expect([ward.beds.get(OTHER)?.name, ward.beds.get(PATIENT)?.name]).toEqual([EMERGENCY_BED, "Bed 1"]);
  });
});

describe("auditText", () => {
  const bed = (patient: string): string | null => (patient === PATIENT ? "Bed 1" : null);

  it("says who looked and what changed", () => {
    const until = { untilMs: NOW + 1_800_000 };
    const cases: readonly (readonly [Partial<Audit>, string])[] = [
      [{}, "nurse logged in"],
      [{ what: "look", patient: PATIENT }, "nurse looked at Bed 1"],
      [{ what: "look", patient: OTHER }, "nurse looked at a patient without a bed"],
      [{ what: "export", user: "uid 1000" }, "The whole history was exported by uid 1000"],
      [{ what: "export", user: "uid 1000", patient: PATIENT, text: "vitals" }, "uid 1000 exported vitals of Bed 1"],
      [{ what: "look", count: 12 }, "nurse looked at 12 patients"],
      [{ what: "emergency", about: "abababab", text: "found on the floor", ...until }, "nurse asks for emergency access to card abababab… until 11:01: “found on the floor”"],
      [{ what: "emergency_opened", about: "abababab", ...until }, "nurse has emergency access to card abababab… until 11:01"],
      [{ what: "emergency_failed", about: "abababab", text: "no" }, "nurse got no emergency access to card abababab…: no"],
      [{ what: "frequent", count: 3 }, "nurse opened 3 emergencies within a day: for review"],
      [{ what: "granted", patient: PATIENT, about: "cdcdcdcd", ...until }, "Consent of Bed 1 until 11:01"],
      [{ what: "ended", about: "cdcdcdcd", text: "revoked" }, "Consent of cdcdcdcd… ended: revoked"],
      [{ what: "emergency_seen", about: "abababab", count: 2, ...until }, "Ledger: emergency 2 of this hospital for card abababab… until 11:01"],
    ];
    for (const [over, text] of cases) expect(auditText(line(over), bed, NOW)).toBe(text);
    expect([isNotable(line({})), isNotable(line({ what: "ended" }))]).toEqual([false, true]);
  });
});

describe("break-glass form", () => {
  const good: EmergencyRequest = { pseudonym: "ab".repeat(32), reason: "found unconscious", minutes: 30, confirm: true, gateway: null };

  it("says what is wrong before anything is sent", () => {
    expect(faultOf(good)).toBeNull();
    expect(faultOf({ ...good, pseudonym: ` 0x${"ABab ".repeat(16)}\n` })).toBeNull();
    expect(faultOf({ ...good, pseudonym: "ab" })).toMatch(/64 digits/);
    expect(faultOf({ ...good, reason: "         short" })).toMatch(/at least 10/);
    for (const minutes of [0, 241, 1.5, Number.NaN]) expect(faultOf({ ...good, minutes })).toMatch(/1 to 240/);
    expect(faultOf({ ...good, confirm: false })).toMatch(/Confirm/);
  });

  it("reads the feed's answer", () => {
    expect(answerOf(true, { number: 1, from: 4, until: 5, block: 2 })).toEqual({ is: "opened", untilMs: 5000 });
    expect(answerOf(false, { error: "the ledger refuses: this hospital is suspended" })).toEqual({
      is: "refused",
      why: "the ledger refuses: this hospital is suspended",
    });
    for (const body of [null, [], {}, { until: "x" }, { error: 5 }]) expect(answerOf(true, body).is).toBe("refused");
  });
});
