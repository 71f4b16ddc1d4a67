//! The control path's part: the flood, the quarantine, what the controller is refused, consent withdrawn and given again, the broken
//! glass, and the controller gone and replaced by one that has turned.

use std::time::Duration;

use anyhow::{Context, bail};
use caregate_host::clock;
use serde::Deserialize;
use serde_json::Value;

use super::{Script, Seen as StorySeen, pause, wire};
use crate::demo::ctl::text;
use crate::demo::deployment::GATEWAY;
use crate::demo::network::{Place, Service};
use crate::demo::pages::Pages;
use crate::demo::system::{Daemon, System};
use crate::say;

/// Time for a page to show what has happened: the slowest looks every two seconds.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a state is left as it is, so that readings of it are there to be counted.
const HOLD: Duration = Duration::from_secs(3);
/// For how long the glass is broken.
const EMERGENCY_MINUTES: &str = "1";
/// The same in milliseconds.
const EMERGENCY_MS: f64 = 60_000.0;
/// Time for ten minutes of history to come and to be opened.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a gateway's word by way of the core: the page's own patience is longer, a gateway's answer takes milliseconds.
const OFFER_TIMEOUT: Duration = Duration::from_secs(40);
/// Time for the last second of an emergency to be over everywhere.
const EMERGENCY_GRACE: Duration = Duration::from_secs(5);
/// Between two bundles of which the older is to be refused: the controller sends a new header at least so often.
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for the gateway to come to whoever stands in the controller's place.
const HOSTILE_TIMEOUT: Duration = Duration::from_secs(60);

/// A change of access, Unix milliseconds.
#[derive(Debug)]
pub(super) struct Change {
    /// When the transaction, or the message, was sent.
    pub(super) sent_ms: f64,
    /// When the gateway was seen to act on it.
    pub(super) in_force_ms: f64,
}

/// The broken glass, Unix milliseconds.
#[derive(Debug)]
pub(super) struct Emergency {
    pub(super) sent_ms: f64,
    pub(super) until_ms: f64,
}

/// What was seen to happen, and what was measured.
#[derive(Debug, Default)]
pub(in crate::demo) struct Seen {
    pub(in crate::demo) wire: wire::Seen,
    pub(super) revoked: Option<Change>,
    pub(super) granted: Option<Change>,
    pub(super) revoked_directly: Option<Change>,
    pub(super) emergency: Option<Emergency>,
    pub(in crate::demo) revocation_ms: Option<f64>,
    pub(in crate::demo) openable_after_revocation: Option<u64>,
    /// Since when the second grant gives, Unix milliseconds: the second in which it was signed, so a moment before it was sent. Where a
    /// minute begins with that second, its key is given.
    pub(in crate::demo) granted_from_ms: Option<f64>,
    pub(in crate::demo) grant_ms: Option<f64>,
    pub(in crate::demo) break_glass_ms: Option<f64>,
    /// Readings that the second hospital can open.
    pub(in crate::demo) emergency_readings: u64,
    /// Of those, sealed before the glass was broken or after its time.
    pub(in crate::demo) emergency_outside: u64,
    pub(in crate::demo) forged_tried: u64,
    pub(in crate::demo) forged_refused: u64,
    pub(in crate::demo) policy_age_ms: Option<f64>,
    /// Readings went on without the controller.
    pub(in crate::demo) alone: bool,
    /// What can't be shown here.
    pub(in crate::demo) not_shown: Vec<&'static str>,
}

impl Seen {
    /// From the sending until the gateway was seen to act, in milliseconds; readings may be too seldom for `revocation_ms` to show it.
    pub(in crate::demo) fn revocation_in_force_ms(&self) -> Option<f64> {
        self.revoked.as_ref().map(|revoked| revoked.in_force_ms - revoked.sent_ms)
    }
}

/// What `hostile-controller` says.
#[derive(Debug, Deserialize)]
struct Hostile {
    tried: u64,
    refused: u64,
}

/// Plays all of it.
pub(super) fn play(
    system: &mut System<'_>,
    pages: &mut Pages,
    script: Script<'_>,
    seen: &mut StorySeen,
) -> anyhow::Result<()> {
    if script.root {
        wire::play(system, pages, seen)?;
    } else {
        seen.control.not_shown = wire::NEEDS_ROOT.to_vec();
    }
    look_back(pages, if script.records.is_empty() { "vitals" } else { "waveform" })?;
    let older = bundle(system)?;
    withdraw(system, pages, &mut seen.control)?;
    give_again(system, pages, &mut seen.control)?;
    break_glass(system, pages, &mut seen.control)?;
    if let Some(picture) = script.screenshot {
        let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
        for page in ["clinic", "patient", "dashboard"] {
            pages.screenshot(page, &picture.with_file_name(format!("{stem}-{page}.png")))?;
        }
    }
    let newer = newer_bundle(system, &older)?;
    seen.control.policy_age_ms =
        system.gateway_metric("caregate_gateway_policy_age_seconds").map(|age_s| age_s * 1000.0);
    lose_controller(system, &mut seen.control)?;
    turn(system, &older, &newer, &mut seen.control)?;
    revoke_directly(system, pages, &mut seen.control)?;
    hand_in(system, pages)?;
    hand_in_at_the_gateway(system, pages)?;
    if script.records.is_empty() {
        // In one story of the gate: it takes half a minute more.
        break_glass_by_core(system, pages, &mut seen.control)?;
    }
    emergency_over(system, pages, &seen.control)
}

fn now_ms() -> f64 {
    clock::now_us() as f64 / 1000.0
}

/// Waits until the gateway's policy epoch has risen above `before`; answers with when that was.
fn risen(system: &mut System<'_>, before: f64) -> anyhow::Result<f64> {
    let admin = system.admin(Daemon::Gateway)?;
    let epoch = || crate::demo::process::metric(admin, EPOCH);
    system.wait_until("the gateway acts on it", PAGE_TIMEOUT, || epoch().is_some_and(|now| now > before))?;
    Ok(now_ms())
}

const EPOCH: &str = "caregate_gateway_policy_epoch";

fn epoch(system: &System<'_>) -> anyhow::Result<f64> {
    system.gateway_metric(EPOCH).context("the gateway says no policy epoch")
}

/// Step 3: the patient revokes; the hospital gets nothing more that it can open.
fn withdraw(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: the patient revokes the hospital's access, on the ledger");
    let (program, before) = (system.program("caregatectl"), epoch(system)?);
    let mut sent_ms = now_ms();
    let answer = system.deployment.patients[0].revoke(system.ctl(&program))?;
    sent_ms = answer["ledger"]["sent_ms"].as_f64().unwrap_or(sent_ms);
    let in_force_ms = risen(system, before)?;
    seen.revoked = Some(Change { sent_ms, in_force_ms });
    pages.expect("hospital", "access ended .*revoked by the patient", PAGE_TIMEOUT)?;
    pages.expect("patient", r"revoked up to grant \d+, on the ledger", PAGE_TIMEOUT)?;
    pause(system, HOLD)
}

/// Step 3: a new grant brings it back.
fn give_again(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: the patient grants again");
    let (program, before) = (system.program("caregatectl"), epoch(system)?);
    let mut sent_ms = now_ms();
    let answer = system.deployment.patients[0].grant(system.ctl(&program))?;
    sent_ms = answer["ledger"]["sent_ms"].as_f64().unwrap_or(sent_ms);
    let in_force_ms = risen(system, before)?;
    seen.granted = Some(Change { sent_ms, in_force_ms });
    seen.granted_from_ms = Some(1000.0 * answer["from"].as_f64().context("the grant says no time")?);
    pages.expect("hospital", "^(?!.*revoked by the patient).*consent until", PAGE_TIMEOUT)?;
    pause(system, HOLD)
}

/// Step 4: a hospital without consent breaks the glass.
fn break_glass(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: a second hospital, without consent, breaks the glass for a minute");
    let sent_ms = now_ms();
    let answer = system.emergency(EMERGENCY_MINUTES)?;
    let until_s = answer["until"].as_f64().with_context(|| format!("no `until` in {answer}"))?;
    seen.emergency = Some(Emergency { sent_ms, until_ms: until_s * 1000.0 });
    pages.expect("clinic", r"emergency access, \d", PAGE_TIMEOUT)?;
    pages.expect("patient", "emergency access is open", PAGE_TIMEOUT)?;
    let program = system.program("caregatectl");
    let ledger = &system.deployment.ledger;
    let chain_id = ledger.chain_id.to_string();
    let trail = system.ctl(&program).call(
        Some(Place::Operator),
        &["audit", "events", "--rpc", &ledger.rpc, "--chain-id", &chain_id, "--contract", &ledger.contract],
    )?;
    if !trail.stdout.to_lowercase().contains("emergency") {
        bail!("the ledger's audit trail shows no emergency: {}", trail.stdout);
    }
    pause(system, HOLD)
}

/// The gateway's last bundle, as the controller gives it to anybody who may ask.
fn bundle(system: &System<'_>) -> anyhow::Result<Vec<u8>> {
    let file = system.file("bundle.cbor");
    let out = file.display().to_string();
    system.operator(&["gateways", "bundle"], &[GATEWAY, "--out", &out])?.done()?;
    std::fs::read(&file).with_context(|| file.display().to_string())
}

/// One with a newer header.
fn newer_bundle(system: &mut System<'_>, older: &[u8]) -> anyhow::Result<Vec<u8>> {
    let deadline = clock::monotonic() + BUNDLE_TIMEOUT;
    loop {
        let newer = bundle(system)?;
        if newer != older {
            return Ok(newer);
        }
        if clock::monotonic() > deadline {
            bail!("the controller has had the same bundle for {} s", BUNDLE_TIMEOUT.as_secs());
        }
        pause(system, Duration::from_millis(500))?;
    }
}

/// Step 5: the controller is killed; everything goes on by verified policy.
fn lose_controller(system: &mut System<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: the controller is killed (-9)");
    if !system.kill(Daemon::Controller)? {
        bail!("the controller had ended before it was killed");
    }
    let commits = || system.gateway_metric("caregate_gateway_commits_total").unwrap_or(0.0);
    let before = commits();
    let clinic_before = lines(system, "clinic.jsonl");
    let hospital_before = lines(system, "feed.jsonl");
    pause(system, HOLD)?;
    seen.alone = system.gateway_metric("caregate_gateway_commits_total").unwrap_or(0.0) > before
        && lines(system, "feed.jsonl") > hospital_before
        && lines(system, "clinic.jsonl") > clinic_before;
    Ok(())
}

fn lines(system: &System<'_>, name: &str) -> usize {
    std::fs::read_to_string(system.file(name)).map_or(0, |text| text.lines().count())
}

/// Step 5: one that has turned stands in the controller's place.
fn turn(system: &mut System<'_>, older: &[u8], newer: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
    say("story: a controller that has turned hands the gateway forged policy");
    let (bundle, old) = (system.file("bundle.cbor"), system.file("bundle.older.cbor"));
    std::fs::write(&bundle, newer)?;
    std::fs::write(&old, older)?;
    let pki = system.deployment.dir.join("pki/controller-1");
    let path = |path: std::path::PathBuf| path.display().to_string();
    let ledger = &system.deployment.ledger;
    let arguments = vec![
        "--listen".into(),
        system.network.listen(Service::Policy).to_string(),
        "--certificate".into(),
        path(pki.join("certificate.pem")),
        "--key".into(),
        path(pki.join("key.pem")),
        "--ca".into(),
        path(pki.join("ca.pem")),
        "--bundle".into(),
        path(bundle),
        "--older".into(),
        path(old),
        "--chain-id".into(),
        ledger.chain_id.to_string(),
        "--contract".into(),
        ledger.contract.clone(),
    ];
    let mut hostile =
        system.tool("hostile-controller", "hostile-controller", Some(Place::Operator), arguments)?;
    let deadline = clock::monotonic() + HOSTILE_TIMEOUT;
    while hostile.ended()?.is_none() {
        if clock::monotonic() > deadline {
            bail!("no gateway came to the hostile controller, or it never answered; see its log");
        }
        pause(system, Duration::from_millis(100))?;
    }
    let log = std::fs::read_to_string(system.file("logs/hostile-controller.log"))?;
    let report = log.lines().rev().find_map(|line| serde_json::from_str::<Hostile>(line).ok());
    let Hostile { tried, refused } =
        report.context("the hostile controller reported nothing; see its log")?;
    (seen.forged_tried, seen.forged_refused) = (tried, refused);
    Ok(())
}

/// A revocation handed straight to the gateway holds without ledger and controller.
fn revoke_directly(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: the patient revokes at the gateway's door; there is no controller");
    let (program, sent_ms) = (system.program("caregatectl"), now_ms());
    let door = system.page_url(Daemon::Gateway)?;
    let answer: Value = system.deployment.patients[0].revoke_at(system.ctl(&program), &door)?;
    if text(&answer, "relationship")? != system.deployment.patients[0].relationship {
        bail!("the gateway took another relationship's revocation: {answer}");
    }
    // It was in force when the gateway answered.
    seen.revoked_directly = Some(Change { sent_ms, in_force_ms: now_ms() });
    pages.expect("patient", "by your wallet, ahead of the ledger", PAGE_TIMEOUT)
}

/// The hospital's page shows a time of the past; a record may have waveforms alone.
fn look_back(pages: &mut Pages, class: &str) -> anyhow::Result<()> {
    say("story: the hospital's page shows the last ten minutes");
    pages.click("hospital", "History")?;
    pages.fill("hospital", &[], &[("select[name=class]", class)], &[], &[])?;
    pages.click("hospital", "Show this time")?;
    // It has come whole: while it comes there is no stop or semicolon after the count.
    pages.expect("hospital", r"\d readings[.;]", HISTORY_TIMEOUT)?;
    pages.click("hospital", "Close")
}

/// Without a controller, the hospital's page hands a message of the patient to the gateway by way of the core.
fn hand_in(system: &mut System<'_>, pages: &mut Pages) -> anyhow::Result<()> {
    say("story: the hospital's page hands a revocation to the gateway by way of the core");
    let (program, file) = (system.program("caregatectl"), system.file("revocation.cbor"));
    system.deployment.patients[0].sign_revocation(system.ctl(&program), &file)?;
    pages.click("hospital", "Policy")?;
    let chosen = [("select[name=gateway]", GATEWAY), ("select[name=kind]", "revocation")];
    pages.fill("hospital", &[], &chosen, &[("input[name=file]", &file)], &[])?;
    pages.click("hospital", "Hand in")?;
    pages.expect("hospital", &format!("in force at {GATEWAY}, by its own signed word"), OFFER_TIMEOUT)?;
    pages.click("hospital", "Close")
}

/// The gateway's own page takes the same message once more, which changes nothing, and refuses it by name where a bit of it is turned.
fn hand_in_at_the_gateway(system: &System<'_>, pages: &mut Pages) -> anyhow::Result<()> {
    say("story: a file is handed in on the gateway's own page");
    let (good, bad) = (system.file("revocation.cbor"), system.file("forged-revocation.cbor"));
    let mut bytes = std::fs::read(&good).with_context(|| good.display().to_string())?;
    // Within the signature.
    let at = bytes.len().checked_sub(20).context("a revocation is longer")?;
    bytes[at] ^= 1;
    std::fs::write(&bad, bytes).with_context(|| bad.display().to_string())?;
    for (file, said) in
        [(&bad, r"is refused: .*\(revocation_signature\)"), (&good, "the revocation is in force")]
    {
        pages.fill("patient", &[], &[], &[("#hand-in-file", file)], &[])?;
        pages.click("patient", "Check and hand in")?;
        pages.expect("patient", said, PAGE_TIMEOUT)?;
    }
    Ok(())
}

/// And the second hospital's page breaks the glass straight there, which opens it for another minute.
fn break_glass_by_core(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: the second hospital's page breaks the glass by way of the core");
    let pseudonym = system.deployment.patients[0].pseudonym.clone();
    pages.click("clinic", "Emergency access")?;
    let texts = [
        ("textarea[name=pseudonym]", pseudonym.as_str()),
        ("textarea[name=reason]", "Found unconscious in the street"),
        ("input[name=minutes]", EMERGENCY_MINUTES),
    ];
    let chosen = [("select[name=gateway]", GATEWAY)];
    let sent_ms = now_ms();
    pages.fill("clinic", &texts, &chosen, &[], &["input[name=confirm]"])?;
    pages.click("clinic", "Break the glass")?;
    pages.expect("clinic", "emergency access is open until", OFFER_TIMEOUT)?;
    pages.click("clinic", "Close")?;
    pages.expect("patient", "emergency access is open", PAGE_TIMEOUT)?;
    let until_ms = now_ms() + EMERGENCY_MS;
    let emergency = seen.emergency.get_or_insert(Emergency { sent_ms, until_ms });
    emergency.until_ms = emergency.until_ms.max(until_ms);
    Ok(())
}

/// The glass is whole again.
fn emergency_over(system: &mut System<'_>, pages: &mut Pages, seen: &Seen) -> anyhow::Result<()> {
    let Some(emergency) = &seen.emergency else { return Ok(()) };
    say("story: waiting until the emergency's time is over");
    while now_ms() < emergency.until_ms {
        pause(system, Duration::from_millis(200))?;
    }
    pause(system, EMERGENCY_GRACE)?;
    pages.expect("clinic", "access ended .*emergency.s time was over", PAGE_TIMEOUT)
}
