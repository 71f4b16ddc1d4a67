/** What the break-glass form asks for, checked before it is sent; the feed checks it again. */

export const REASON_CHARS_MIN = 10;
export const MINUTES_MAX = 240;
export const MINUTES_USUAL = 60;

export interface EmergencyRequest {
  readonly pseudonym: string;
  readonly reason: string;
  readonly minutes: number;
  readonly confirm: boolean;
  /** The gateway that it goes straight to, by way of the core; null for the ledger. */
  readonly gateway: string | null;
}

/** What is wrong with a request, in words; null for nothing. */
export function faultOf(request: EmergencyRequest): string | null {
  const digits = request.pseudonym.replace(/\s+/g, "").replace(/^0x/, "");
  if (!/^[0-9a-fA-F]{64}$/.test(digits)) return "The pseudonym has 64 digits and letters a to f, as on the patient's card.";
  if ([...request.reason.trim()].length < REASON_CHARS_MIN) return `Give a reason of at least ${REASON_CHARS_MIN} characters.`;
  if (!Number.isInteger(request.minutes) || request.minutes < 1 || request.minutes > MINUTES_MAX) return `The time is 1 to ${MINUTES_MAX} minutes.`;
  if (!request.confirm) return "Confirm that the patient will see this.";
  return null;
}

export type EmergencyAnswer = { readonly is: "opened"; readonly untilMs: number } | { readonly is: "refused"; readonly why: string };

/** Reads the feed's answer. */
export function answerOf(ok: boolean, body: unknown): EmergencyAnswer {
  const fields: Record<string, unknown> = typeof body === "object" && body !== null ? { ...body } : {};
  const until = fields["until"];
  if (ok && typeof until === "number" && Number.isSafeInteger(until)) return { is: "opened", untilMs: until * 1000 };
  const why = fields["error"];
  return { is: "refused", why: typeof why === "string" && why.length > 0 ? why : "The feed gave no reason." };
}
