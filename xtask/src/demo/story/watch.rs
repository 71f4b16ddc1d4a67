//! An alarm: staff set a limit, it is passed, the ward and the home see it, and staff acknowledge it. All of it goes through the gateway's
//! own watch: the ward's part is signed by the hospital and carried by the core, which can't read it.

use std::time::Duration;

use anyhow::Context;
use caregate_host::clock;
use serde_json::json;

use super::control::PAGE_TIMEOUT;
use crate::demo::pages::Pages;
use crate::demo::system::System;
use crate::say;

/// A heart rate that everybody is above; the row of the code table is `heart-rate`.
const HIGH: f64 = 20.0;
const HEART_RATE: u16 = 1;
const ALARM: &str = r"\*\* Heart rate [\d.]+ > 20";
/// A command lives for 20 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(25);

/// What was seen of it.
#[derive(Debug, Default)]
pub(in crate::demo) struct Seen {
    /// From the limit's sending to the alarm on the ward's page, in milliseconds; a reading comes each second.
    pub(in crate::demo) alarm_ms: Option<f64>,
    /// The gateway's own page showed it too.
    pub(in crate::demo) at_home: bool,
    /// Both pages show that somebody acknowledged it.
    pub(in crate::demo) acknowledged: bool,
}

/// Plays it.
pub(super) fn play(system: &mut System<'_>, pages: &mut Pages, seen: &mut Seen) -> anyhow::Result<()> {
    say("story: staff set an alarm limit from the ward; it is passed");
    let patient = system.deployment.patients.first().context("no patient")?.patient.clone();
    let limits = |limits: serde_json::Value| json!({"patient": patient, "action": {"limits": {"quantity": HEART_RATE, "limits": limits}}});
    let sent = clock::monotonic();
    let low = json!({"high": HIGH, "delay_s": 0, "hysteresis": 0.0});
    pages.post("hospital", "/api/command", &limits(low), COMMAND_TIMEOUT)?;
    pages.expect("hospital", ALARM, PAGE_TIMEOUT)?;
    seen.alarm_ms = Some(sent.elapsed().as_secs_f64() * 1000.0);
    pages.expect("patient", ALARM, PAGE_TIMEOUT)?;
    seen.at_home = true;
    pages.click("hospital", "Acknowledge")?;
    pages.expect("hospital", &format!("{ALARM}\\s*✓"), PAGE_TIMEOUT)?;
    pages.expect("patient", &format!("{ALARM}\\s*acknowledged"), PAGE_TIMEOUT)?;
    seen.acknowledged = true;
    pages.post("hospital", "/api/command", &limits(serde_json::Value::Null), COMMAND_TIMEOUT)?;
    say(&format!(
        "story: the alarm was on the ward {:.0} ms after the limit, and is acknowledged",
        seen.alarm_ms.unwrap_or_default()
    ));
    Ok(())
}
