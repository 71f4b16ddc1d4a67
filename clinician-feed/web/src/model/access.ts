/** What a tile says about what its patient's access rests on. */
import type { Basis, End } from "./protocol";

/** Beyond a day an hour says nothing; the date does. */
const DAY_MS = 24 * 3_600_000;

const WHY: Readonly<Record<End, string>> = {
  revoked: "revoked by the patient",
  replaced: "given to somebody else",
  expired: "its time was over",
  emergency_over: "the emergency's time was over",
  suspended: "this hospital is suspended",
};

export interface AccessText {
  readonly text: string;
  readonly state: "consent" | "emergency" | "ended" | "none";
}

export function clockText(ms: number): string {
  return new Date(ms).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

function dateText(ms: number, nowMs: number): string {
  const sameYear = new Date(ms).getFullYear() === new Date(nowMs).getFullYear();
  return new Date(ms).toLocaleDateString("en-GB", { day: "numeric", month: "short", ...(sameYear ? {} : { year: "numeric" }) });
}

/** The time where it is near, else the date. */
export function whenText(ms: number, nowMs: number): string {
  const sameDay = new Date(ms).toDateString() === new Date(nowMs).toDateString();
  if (sameDay) return clockText(ms);
  return Math.abs(ms - nowMs) < DAY_MS ? `${dateText(ms, nowMs)} ${clockText(ms)}` : dateText(ms, nowMs);
}

/** Hours, minutes and seconds that are left. */
export function leftText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60].map((part) => String(part).padStart(2, "0")).join(":");
}

/** Null where there is nothing to say: no ledger, or a bed that names no relationship. */
export function accessText(access: Basis | null, feedNowMs: number): AccessText | null {
  if (access === null) return null;
  switch (access.basis) {
    case "unknown":
      return null;
    case "none":
      return { text: "No consent on the ledger", state: "none" };
    case "pending":
      return { text: `Consent from ${whenText(access.fromMs, feedNowMs)}`, state: "none" };
    case "consent":
      return { text: `Consent until ${whenText(access.untilMs, feedNowMs)}`, state: "consent" };
    case "emergency":
      return { text: `Emergency access, ${leftText(access.untilMs - feedNowMs)} left`, state: "emergency" };
    case "ended":
      return { text: `Access ended ${whenText(access.atMs, feedNowMs)}: ${WHY[access.why]}`, state: "ended" };
  }
}
