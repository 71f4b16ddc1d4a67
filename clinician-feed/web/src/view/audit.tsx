/** Who looked, and what changed. */
import { clockText, whenText } from "../model/access";
import { auditText, isNotable } from "../model/audit";
import type { Ward } from "../model/ward";

export function AuditPanel({ ward, feedNowMs, close }: { readonly ward: Ward; readonly feedNowMs: number; readonly close: () => void }) {
  const bedName = (patient: string): string | null => ward.beds.get(patient)?.name ?? null;
  const sameDay = (ms: number): boolean => new Date(ms).toDateString() === new Date(feedNowMs).toDateString();
  return (
    <section class="panel audit" role="dialog" aria-label="Who looked and what changed">
      <header class="panel-head">
        <h2>Who looked, what changed</h2>
        <button type="button" class="panel-close" onClick={close} aria-label="Close">
          ×
        </button>
      </header>
      {ward.audit.length === 0 ? (
        <p class="panel-body dim">Nothing yet.</p>
      ) : (
        <ol class="panel-body audit-lines">
          {ward.audit.map((line) => (
            <li key={line.id} class={isNotable(line) ? "audit-line is-notable" : "audit-line"}>
              <time>{sameDay(line.atMs) ? clockText(line.atMs) : whenText(line.atMs, feedNowMs)}</time> {auditText(line, bedName, feedNowMs)}
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
