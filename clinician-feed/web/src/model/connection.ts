/**
 * The page's connection as a state machine: events and the time in, actions out; `shell/client.ts` carries them out.
 *
 *   start ─▶ checking ─session ok─▶ connecting ─opened─▶ open ─closed─▶ waiting ─timer─▶ checking …
 *               └─ no session ─▶ loggedOut ─login─▶ connecting
 *
 * A WebSocket's failed upgrade does not tell 401 from a dead host, so the session is asked for by HTTP before each attempt.
 */

/** First pause; a feed that restarts is back within a second. */
export const BACKOFF_MS_MIN = 250;
/** Longest pause: half of the 10 s after which the page says NO CONTACT. */
export const BACKOFF_MS_MAX = 5_000;
/** A connection that lasted so long was a good one: the next pause is short again. */
const STABLE_MS = 5_000;
/** Neither a check nor an upgrade may hang longer than this. */
export const ATTEMPT_MS_MAX = 5_000;
/** A ward with a bed says something every second; after so much silence the socket is suspected to be dead. */
export const SILENCE_MS_MAX = 10_000;

export type State =
  | { readonly at: "checking"; readonly sinceMs: number; readonly attempt: number }
  | { readonly at: "connecting"; readonly sinceMs: number; readonly attempt: number }
  | { readonly at: "open"; readonly sinceMs: number; readonly attempt: number; readonly heardMs: number; readonly probing: boolean }
  | { readonly at: "waiting"; readonly untilMs: number; readonly attempt: number }
  | { readonly at: "loggedOut" };

export type Event =
  | { readonly is: "start" }
  | { readonly is: "sessionHeld" }
  | { readonly is: "sessionRefused" }
  | { readonly is: "sessionUnknown" }
  | { readonly is: "opened" }
  | { readonly is: "heard" }
  | { readonly is: "closed" }
  | { readonly is: "loggedIn" }
  | { readonly is: "loggedOut" }
  | { readonly is: "tick" };

/** What the shell does, in order. `connect` drops a socket that may still be there. */
export type Action = "checkSession" | "connect" | "drop" | "showLogin";

export interface Outcome {
  readonly state: State;
  readonly actions: readonly Action[];
}

export const INITIAL: State = { at: "loggedOut" };

/** Pause before attempt `attempt` (from 0): doubling, with half of it drawn by lot so that pages don't return in step. */
export function backoffMs(attempt: number, random: number): number {
  const full = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(attempt, 16));
  return Math.max(BACKOFF_MS_MIN, full * (0.5 + random / 2));
}

function stay(state: State): Outcome {
  return { state, actions: [] };
}

function wait(attempt: number, nowMs: number, random: number): Outcome {
  return { state: { at: "waiting", untilMs: nowMs + backoffMs(attempt, random), attempt: attempt + 1 }, actions: ["drop"] };
}

function connect(attempt: number, nowMs: number): Outcome {
  return { state: { at: "connecting", sinceMs: nowMs, attempt }, actions: ["connect"] };
}

function check(attempt: number, nowMs: number): Outcome {
  return { state: { at: "checking", sinceMs: nowMs, attempt }, actions: ["checkSession"] };
}

const LOGIN: Outcome = { state: { at: "loggedOut" }, actions: ["drop", "showLogin"] };

function nextOpen(state: Extract<State, { at: "open" }>, event: Event, nowMs: number, random: number): Outcome {
  const attempt = nowMs - state.sinceMs >= STABLE_MS ? 0 : state.attempt;
  switch (event.is) {
    case "heard":
      return stay({ ...state, heardMs: nowMs, probing: false });
    case "sessionHeld":
      return stay({ ...state, heardMs: nowMs, probing: false });
    case "closed":
    case "sessionUnknown":
      return wait(attempt, nowMs, random);
    case "tick":
      if (state.probing || nowMs - state.heardMs < SILENCE_MS_MAX) return stay(state);
      return { state: { ...state, probing: true }, actions: ["checkSession"] };
    case "start":
    case "opened":
    case "loggedIn":
      return stay(state);
    case "sessionRefused":
    case "loggedOut":
      return LOGIN;
  }
}

function nextAttempt(state: Extract<State, { at: "checking" | "connecting" }>, event: Event, nowMs: number, random: number): Outcome {
  switch (event.is) {
    case "sessionHeld":
      return state.at === "checking" ? connect(state.attempt, nowMs) : stay(state);
    case "opened":
      return state.at === "connecting"
        ? stay({ at: "open", sinceMs: nowMs, attempt: state.attempt, heardMs: nowMs, probing: false })
        : stay(state);
    case "sessionUnknown":
      return state.at === "checking" ? wait(state.attempt, nowMs, random) : stay(state);
    case "closed":
      return state.at === "connecting" ? wait(state.attempt, nowMs, random) : stay(state);
    case "tick":
      return nowMs - state.sinceMs >= ATTEMPT_MS_MAX ? wait(state.attempt, nowMs, random) : stay(state);
    case "start":
    case "heard":
    case "loggedIn":
      return stay(state);
    case "sessionRefused":
    case "loggedOut":
      return LOGIN;
  }
}

/** The next state and what to do. `random` is in [0, 1). */
export function next(state: State, event: Event, nowMs: number, random: number): Outcome {
  switch (state.at) {
    case "open":
      return nextOpen(state, event, nowMs, random);
    case "checking":
    case "connecting":
      return nextAttempt(state, event, nowMs, random);
    case "waiting":
      if (event.is === "tick" && nowMs >= state.untilMs) return check(state.attempt, nowMs);
      if (event.is === "loggedOut") return LOGIN;
      return stay(state);
    case "loggedOut":
      if (event.is === "start") return check(0, nowMs);
      if (event.is === "loggedIn") return connect(0, nowMs);
      return stay(state);
  }
}

/** Since when the page has had no live data path: the connection or, behind it, the feed's link to the core is down. */
export class Contact {
  private lostMs: number | null = null;

  observe(nowMs: number, isOpen: boolean, coreUp: boolean): void {
    if (isOpen && coreUp) this.lostMs = null;
    else this.lostMs ??= nowMs;
  }

  /** How long, ms; 0 while there is contact. */
  lostForMs(nowMs: number): number {
    return this.lostMs === null ? 0 : nowMs - this.lostMs;
  }
}

/** "Signal lost" must show within 10 s. */
export const NO_CONTACT_MS = 10_000;
