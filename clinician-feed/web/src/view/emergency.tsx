/** The break-glass form. */
import { useState } from "preact/hooks";
import { clockText } from "../model/access";
import { MINUTES_MAX, MINUTES_USUAL, REASON_CHARS_MIN, faultOf } from "../model/emergency";
import type { EmergencyAnswer, EmergencyRequest } from "../model/emergency";

export interface EmergencyProps {
  readonly open: (request: EmergencyRequest) => Promise<EmergencyAnswer>;
  readonly close: () => void;
  readonly user: string;
  /** Whether the ledger says that this hospital may not. */
  readonly refused: boolean;
}

function requestOf(form: HTMLFormElement): EmergencyRequest {
  const data = new FormData(form);
  const text = (name: string): string => String(data.get(name) ?? "");
  return {
    pseudonym: text("pseudonym"),
    reason: text("reason"),
    minutes: Number(text("minutes")),
    confirm: data.get("confirm") !== null,
  };
}

function Opened({ untilMs, close }: { readonly untilMs: number; readonly close: () => void }) {
  return (
    <div class="panel-body">
      <p role="status">
        <strong>Emergency access is open until {clockText(untilMs)}.</strong> The patient's tile comes with the first readings, within seconds
        where the patient's gateway is connected.
      </p>
      <p class="panel-buttons">
        <button type="button" class="primary" onClick={close}>
          Close
        </button>
      </p>
    </div>
  );
}

export function Emergency({ open, close, user, refused }: EmergencyProps) {
  const [fault, setFault] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [untilMs, setUntil] = useState<number | null>(null);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (busy || !(event.currentTarget instanceof HTMLFormElement)) return;
    const request = requestOf(event.currentTarget);
    const wrong = faultOf(request);
    setFault(wrong);
    if (wrong !== null) return;
    setBusy(true);
    const answer = await open(request);
    setBusy(false);
    if (answer.is === "opened") setUntil(answer.untilMs);
    else setFault(answer.why);
  };
  return (
    <section class="panel emergency" role="dialog" aria-modal="true" aria-label="Emergency access">
      <header class="panel-head">
        <h2>Emergency access</h2>
        <button type="button" class="panel-close" onClick={close} aria-label="Close">
          ×
        </button>
      </header>
      {untilMs !== null ? (
        <Opened untilMs={untilMs} close={close} />
      ) : (
        <form class="panel-body" onSubmit={(event) => void submit(event as unknown as SubmitEvent)} noValidate autocomplete="off">
          <p class="emergency-warning">
            This opens a patient's live readings without their consent. <strong>The patient sees it at once</strong>: this hospital and the time.
            Your name ({user}) and the reason are kept here for review, and committed to on the ledger.
          </p>
          {refused && <p class="refusal">The ledger does not list this hospital for emergencies; it will refuse.</p>}
          <label>
            Pseudonym on the patient's card
            <textarea name="pseudonym" rows={2} spellcheck={false} autofocus />
          </label>
          <label>
            Reason, at least {REASON_CHARS_MIN} characters
            <textarea name="reason" rows={3} maxLength={1000} />
          </label>
          <label>
            Minutes, at most {MINUTES_MAX}
            <input name="minutes" type="number" min={1} max={MINUTES_MAX} value={MINUTES_USUAL} />
          </label>
          <label class="check">
            <input name="confirm" type="checkbox" /> It is an emergency, and I know that the patient will see this.
          </label>
          <p class="refusal" role="alert">
            {fault}
          </p>
          <p class="panel-buttons">
            <button type="submit" class="primary danger" disabled={busy}>
              {busy ? "Asking the ledger…" : "Break the glass"}
            </button>
            <button type="button" onClick={close}>
              Cancel
            </button>
          </p>
        </form>
      )}
    </section>
  );
}
