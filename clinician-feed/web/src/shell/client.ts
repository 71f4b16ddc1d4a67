/** Carries out what the connection's state machine says: fetch, WebSocket and the clock. */
import { commandAnswer } from "../model/command";
import type { Action as CommandAction, CommandAnswer } from "../model/command";
import { ATTEMPT_MS_MAX, Contact, INITIAL, next } from "../model/connection";
import type { Action, Event, State } from "../model/connection";
import { answerOf } from "../model/emergency";
import type { EmergencyAnswer, EmergencyRequest } from "../model/emergency";
import { History, historyPath } from "../model/history";
import type { HistoryRequest } from "../model/history";
import { NO_ANSWER, gatewaysOf, policyPath, policyState } from "../model/policy";
import type { PolicyKind, PolicyState } from "../model/policy";
import { sounding } from "../model/tone";
import { Ward } from "../model/ward";
import { Tones } from "./tone";
import { record } from "./trace";

/** A quarter of the shortest pause would be finer than anyone sees; half of it keeps reconnection prompt. */
const TICK_MS = 125;

/** The page's only clock: Unix ms, monotonic while the page lives. */
export function clockMs(): number {
  return performance.timeOrigin + performance.now();
}

/** The feed gives up on a gateway's word after 40 s for each of its keys, of which there are two while it changes them. */
const POLICY_MS_MAX = 90_000;

/** A transaction is in a block within 30 s or given up; straight to a gateway it takes as long as policy. */
const EMERGENCY_MS_MAX = POLICY_MS_MAX;

/** A command lives for 20 s; and the way there and back. */
const COMMAND_MS_MAX = 25_000;

export type LoginAnswer = "ok" | "wrong" | "too-many" | "no-answer";

async function sessionUser(): Promise<{ event: Event; user: string | null }> {
  try {
    const response = await fetch("/api/session", { signal: AbortSignal.timeout(ATTEMPT_MS_MAX), cache: "no-store" });
    if (response.status === 401) return { event: { is: "sessionRefused" }, user: null };
    if (!response.ok) return { event: { is: "sessionUnknown" }, user: null };
    const body: unknown = await response.json();
    const user = typeof body === "object" && body !== null && "user" in body ? body.user : null;
    return typeof user === "string" ? { event: { is: "sessionHeld" }, user } : { event: { is: "sessionUnknown" }, user: null };
  } catch {
    return { event: { is: "sessionUnknown" }, user: null };
  }
}

export class Client {
  ward = new Ward();
  readonly contact = new Contact();
  readonly tones = new Tones();
  user: string | null = null;
  /** Whether the login form is to be shown. */
  needsLogin = false;
  private state: State = INITIAL;
  private socket: WebSocket | null = null;
  /** Whose readings the ward holds. */
  private wardUser: string | null = null;

  /** `changed` is called when the page has to be drawn anew; readings don't call it, views look for themselves. */
  constructor(private readonly changed: () => void) {}

  get isOpen(): boolean {
    return this.state.at === "open";
  }

  start(): void {
    setInterval(() => {
      this.handle({ is: "tick" });
      this.sound();
    }, TICK_MS);
    for (const touch of ["pointerdown", "keydown"]) window.addEventListener(touch, () => this.tones.wake());
    this.handle({ is: "start" });
  }

  /** What is not the present sounds nothing: NO CONTACT is said instead. */
  private sound(): void {
    const nowMs = clockMs();
    const live = this.isOpen && this.ward.coreUp;
    this.tones.look(live ? sounding(this.ward.beds.values(), this.ward.feedNowMs(nowMs)) : null, nowMs);
  }

  async login(user: string, password: string): Promise<LoginAnswer> {
    try {
      const response = await fetch("/api/login", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ user, password }),
        signal: AbortSignal.timeout(ATTEMPT_MS_MAX),
      });
      if (response.status === 401) return "wrong";
      if (response.status === 429) return "too-many";
      if (!response.ok) return "no-answer";
    } catch {
      return "no-answer";
    }
    this.takeUser(user);
    this.handle({ is: "loggedIn" });
    return "ok";
  }

  /** Breaks the glass; the pseudonym goes in the body, never in an address. */
  async openEmergency(request: EmergencyRequest): Promise<EmergencyAnswer> {
    try {
      const response = await fetch("/api/emergency", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(request),
        signal: AbortSignal.timeout(EMERGENCY_MS_MAX),
      });
      return answerOf(response.ok, await response.json());
    } catch {
      return { is: "refused", why: "The feed does not answer. Look at the list of who looked and what changed before trying again." };
    }
  }

  /** The gateways to which policy can be handed; none where the feed does not answer. */
  async gateways(): Promise<readonly string[]> {
    try {
      const response = await fetch("/api/policy", { signal: AbortSignal.timeout(ATTEMPT_MS_MAX), cache: "no-store" });
      return response.ok ? gatewaysOf(await response.json()) : [];
    } catch {
      return [];
    }
  }

  /** Hands policy to a gateway by way of the core, and waits for the gateway's word. */
  async handIn(kind: PolicyKind, gateway: string, message: ArrayBuffer): Promise<PolicyState> {
    try {
      const response = await fetch(policyPath(kind, gateway), {
        method: "POST",
        headers: { "content-type": "application/cbor" },
        body: message,
        signal: AbortSignal.timeout(POLICY_MS_MAX),
      });
      return policyState(response.status, await response.json());
    } catch {
      return NO_ANSWER;
    }
  }

  /** Sends to a gateway's watch and waits for its word. */
  async command(patient: string, action: CommandAction): Promise<CommandAnswer> {
    try {
      const response = await fetch("/api/command", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ patient, action }),
        signal: AbortSignal.timeout(COMMAND_MS_MAX),
      });
      return commandAnswer(response.ok, await response.json());
    } catch {
      return { is: "refused", why: "The feed does not answer; look whether it was done." };
    }
  }

  /** Asks for a time of the past; what comes goes into `history` until it is whole, fails, or `stop` says that nobody wants it. */
  async history(request: HistoryRequest, history: History, stop: AbortSignal): Promise<void> {
    try {
      const response = await fetch(historyPath(request), { signal: stop, cache: "no-store" });
      if (!response.ok || response.body === null) {
        const body: unknown = await response.json().catch(() => null);
        const why = typeof body === "object" && body !== null && "error" in body && typeof body.error === "string" ? body.error : `status ${response.status}`;
        history.fail(response.status === 401 ? "Log in again." : `The feed refuses: ${why}.`);
        return;
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        history.receive(value);
      }
      history.ended();
    } catch {
      if (stop.aborted) history.fail("Stopped.");
      else history.ended();
    }
  }

  /** Forgets everything that was shown, also when the feed can't be told. */
  async logout(): Promise<void> {
    this.ward = new Ward();
    this.wardUser = null;
    this.handle({ is: "loggedOut" });
    try {
      await fetch("/api/logout", { method: "POST", signal: AbortSignal.timeout(ATTEMPT_MS_MAX) });
    } catch {
      // The session ends by itself; the page has dropped what it knew.
    }
  }

  /** After an expired session the same user goes on where the stream broke; for another nothing is left. */
  private takeUser(user: string): void {
    if (this.wardUser !== null && this.wardUser !== user) this.ward = new Ward();
    this.wardUser = user;
    this.user = user;
    this.needsLogin = false;
  }

  private handle(event: Event): void {
    const nowMs = clockMs();
    const before = this.state;
    const outcome = next(this.state, event, nowMs, Math.random());
    this.state = outcome.state;
    this.contact.observe(nowMs, this.isOpen, this.ward.coreUp);
    for (const action of outcome.actions) this.act(action);
    if (before.at !== outcome.state.at) this.changed();
  }

  private act(action: Action): void {
    switch (action) {
      case "checkSession":
        void sessionUser().then(({ event, user }) => {
          if (user !== null && this.state.at !== "loggedOut") this.takeUser(user);
          this.handle(event);
        });
        break;
      case "connect":
        this.connect();
        break;
      case "drop":
        this.drop();
        break;
      case "showLogin":
        this.user = null;
        this.needsLogin = true;
        break;
    }
  }

  private drop(): void {
    const { socket } = this;
    this.socket = null;
    socket?.close();
  }

  private connect(): void {
    this.drop();
    const from = this.ward.resumeFrom;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/api/stream${from === null ? "" : `?from=${from}`}`);
    this.socket = socket;
    const ward = this.ward;
    // A socket that was dropped may still speak; only the present one is heard.
    const heard = (event: Event): void => {
      if (this.socket === socket) this.handle(event);
    };
    socket.onopen = () => {
      heard({ is: "opened" });
    };
    socket.onclose = () => {
      heard({ is: "closed" });
    };
    socket.onmessage = (message: MessageEvent<unknown>) => {
      if (this.socket !== socket) return;
      const text = typeof message.data === "string" ? message.data : "";
      const reading = ward.receive(text, clockMs());
      if (reading !== null) record(reading, clockMs());
      heard({ is: "heard" });
    };
  }
}
