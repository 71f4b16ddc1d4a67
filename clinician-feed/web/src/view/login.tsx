/** The login form. */
import { useState } from "preact/hooks";
import type { LoginAnswer } from "../shell/client";

const REFUSALS: Readonly<Record<Exclude<LoginAnswer, "ok">, string>> = {
  wrong: "User name or password is wrong.",
  "too-many": "Too many attempts. Wait a minute, then try again.",
  "no-answer": "The feed does not answer. Try again.",
};

export function Login({ login }: { readonly login: (user: string, password: string) => Promise<LoginAnswer> }) {
  const [refusal, setRefusal] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (busy || !(event.currentTarget instanceof HTMLFormElement)) return;
    const form = new FormData(event.currentTarget);
    setBusy(true);
    setRefusal(null);
    const answer = await login(String(form.get("user") ?? ""), String(form.get("password") ?? ""));
    setBusy(false);
    if (answer !== "ok") setRefusal(REFUSALS[answer]);
  };
  return (
    <main class="login">
      <form onSubmit={(event) => void submit(event as unknown as SubmitEvent)}>
        <h1>
          <img src="/favicon.svg" alt="" width="36" height="36" /> Caregate
        </h1>
        <label>
          User
          <input name="user" autocomplete="username" required maxLength={128} autofocus />
        </label>
        <label>
          Password
          <input name="password" type="password" autocomplete="current-password" required maxLength={1024} />
        </label>
        <button type="submit" disabled={busy}>
          {busy ? "Logging in…" : "Log in"}
        </button>
        <p class="refusal" role="alert">
          {refusal}
        </p>
      </form>
    </main>
  );
}
