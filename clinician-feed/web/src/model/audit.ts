/** The words of the list of who looked and what changed. */
import { whenText } from "./access";
import type { Audit } from "./protocol";

/** `bedName` is null for a patient whom no bed names. */
export function auditText(line: Audit, bedName: (patient: string) => string | null, feedNowMs: number): string {
  const user = line.user ?? "somebody";
  const until = line.untilMs === null ? "" : ` until ${whenText(line.untilMs, feedNowMs)}`;
  const card = line.about === null ? "a card" : `card ${line.about}…`;
  const bed = (line.patient === null ? null : bedName(line.patient)) ?? (line.about === null ? "a patient without a bed" : `${line.about}…`);
  switch (line.what) {
    case "login":
      return `${user} logged in`;
    case "look":
      return line.count === null ? `${user} looked at ${bed}` : `${user} looked at ${line.count} patients`;
    case "export":
      return line.patient === null ? `The whole history was exported by ${user}` : `${user} exported ${line.text ?? "readings"} of ${bed}`;
    case "log_read":
      return line.text === null ? `${user} read the audit log` : `${user} read the audit log: “${line.text}”`;
    case "emergency":
      return `${user} asks for emergency access to ${card}${until}: “${line.text ?? ""}”`;
    case "emergency_opened":
      return `${user} has emergency access to ${card}${until}`;
    case "emergency_failed":
      return `${user} got no emergency access to ${card}: ${line.text ?? "no reason"}`;
    case "frequent":
      return `${user} opened ${line.count ?? "many"} emergencies within a day: for review`;
    case "granted":
      return `Consent of ${bed}${until}`;
    case "ended":
      return `Consent of ${bed} ended: ${line.text ?? "no reason"}`;
    case "emergency_seen":
      return `Ledger: emergency ${line.count ?? ""} of this hospital for ${card}${until}`;
    case "suspended":
      return "Ledger: this hospital is suspended";
    case "command":
      return `${user} sends to ${bed}: ${line.text ?? ""}`;
    case "command_done":
      return `${bed} confirms to ${user}: ${line.text ?? ""}`;
    case "command_failed":
      return `${bed} did not do what ${user} sent: ${line.text ?? ""}`;
    case "offer":
      return `${user} hands in a ${line.text ?? "policy"}`;
    case "offer_done":
      return `In force there, handed in by ${user}: ${line.text ?? "policy"}`;
    case "offer_failed":
      return `Not in force there, handed in by ${user}: ${line.text ?? "policy"}`;
    case "reinstated":
      return "Ledger: this hospital is active again";
  }
}

/** What is to be seen at a glance. */
export function isNotable(line: Audit): boolean {
  return line.what !== "login" && line.what !== "look" && line.what !== "granted" && line.what !== "command" && line.what !== "command_done" && line.what !== "offer";
}
