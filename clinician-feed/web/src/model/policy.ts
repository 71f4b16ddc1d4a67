/** Policy that is handed to a gateway by way of the core (docs/feed-api.md, "Policy for a gateway"), and what became of it. Pure. */

/** What can be handed in: its name in the interface, its name for people, and the most bytes that a gateway takes. */
export const POLICY_KINDS = [
  ["revocation", "A revocation, signed by the patient", 320],
  ["emergency", "An emergency, signed by this or another hospital", 320],
  ["bundle", "A bundle, from a controller or an operator", 1_048_576],
] as const;

export type PolicyKind = (typeof POLICY_KINDS)[number][0];

/** What is wrong with a file, in words; null for nothing. */
export function fileFault(kind: PolicyKind, bytes: number): string | null {
  const most = POLICY_KINDS.find(([name]) => name === kind)?.[2] ?? 0;
  if (bytes === 0) return "Choose the file as it was signed.";
  return bytes > most ? `The file has ${bytes} bytes; a ${kind} has at most ${most}.` : null;
}

export function policyPath(kind: PolicyKind, gateway: string): string {
  return `/api/policy/${kind}?gateway=${encodeURIComponent(gateway)}`;
}

/** Where a message is: only the gateway's own signed word says `in_force` or `refused`. */
export type PolicyState =
  | { readonly is: "sending" }
  | { readonly is: "in_force"; readonly block: number; readonly epoch: number }
  | { readonly is: "refused"; readonly reason: string }
  /** It is not there, and nothing keeps it. */
  | { readonly is: "not_there"; readonly why: string }
  /** It may be in force. */
  | { readonly is: "unknown"; readonly why: string };

/** No answer came to the page. */
export const NO_ANSWER: PolicyState = { is: "unknown", why: "the feed does not answer" };

/** Reads the feed's answer. */
export function policyState(status: number, body: unknown): PolicyState {
  const fields: Record<string, unknown> = typeof body === "object" && body !== null ? { ...body } : {};
  const { number, epoch, refused, error } = fields;
  if (status === 200 && refused === null && typeof number === "number" && typeof epoch === "number") return { is: "in_force", block: number, epoch };
  if (status === 422 && typeof refused === "string") return { is: "refused", reason: refused };
  const why = typeof error === "string" && error.length > 0 ? error : `status ${status}`;
  // 504: it was sent, and nobody knows. 502: somebody on the way answered in the gateway's place.
  return status === 504 || status === 502 ? { is: "unknown", why } : { is: "not_there", why };
}

/** A state in words. */
export function policyText(state: PolicyState, gateway: string): string {
  switch (state.is) {
    case "sending":
      return `Sealed to ${gateway} and on its way; waiting for the gateway's word…`;
    case "in_force":
      return `In force at ${gateway}, by its own signed word (ledger block ${state.block}, policy epoch ${state.epoch}).`;
    case "refused":
      return `${gateway} refuses it: ${state.reason}. Nothing has changed there.`;
    case "not_there":
      return `It did not get to ${gateway}: ${state.why}. Nothing is kept for it.`;
    case "unknown":
      return `No word of ${gateway} came back, so it may be in force: ${state.why}. Handing it in again does no harm.`;
  }
}

/** Reads which gateways there are; none where the answer makes no sense. */
export function gatewaysOf(body: unknown): readonly string[] {
  const names = typeof body === "object" && body !== null && "gateways" in body ? body.gateways : null;
  return Array.isArray(names) ? names.filter((name): name is string => typeof name === "string") : [];
}
