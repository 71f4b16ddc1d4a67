//! Break-glass: checks a request, keeps what opens its commitments, signs it, and puts it on the ledger, or hands it straight to a gateway.
//!
//! The order is the point: the journal has clinician, reason and salts on disk before the ledger can have the commitments, so
//! no emergency is ever there that this domain can't account for. Frequent use is noted for review and never refused.

use std::collections::VecDeque;

use caregate_host::clock;
use caregate_protocol::offer::{Kind, Offer};
use caregate_protocol::policy::delivery::Verdict;
use caregate_protocol::policy::{Emergency, Pseudonym, RecipientStatus};
use ledger_chain::{Chain, ChainError, Mined, Refusal, RelayKey, SendError};
use ledger_client::verify::slots::text_commitment;
use ledger_client::wallet::DomainKey;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tracing::warn;

use crate::access::EmergencyAccess;
use crate::journal::{Entry, JournalError, What};
use crate::offer::{Offerer, PolicyError};
use crate::record::Recorder;

/// Shortest reason, in characters: a word is none.
pub const REASON_CHARS_MIN: usize = 10;
/// Longest reason, in bytes: a paragraph.
pub const REASON_BYTES_MAX: usize = 1000;
/// Longest emergency, in minutes: the contract's bound.
pub const MINUTES_MAX: u32 = 240;
/// From so many within a day a user's emergencies are noted for review: a second one may be the same night's patient.
pub const FREQUENT: usize = 3;
/// That day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Openings remembered for that: more than anybody reviews.
const REMEMBERED_MAX: usize = 1024;
/// Emergencies kept for what the page says of access: as many as four an hour in the time that they are kept.
const HANDED_MAX: usize = 96;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// As on the patient's card: 64 hexadecimal digits; spaces count for nothing.
    pub pseudonym: String,
    /// Why.
    pub reason: String,
    /// For how long.
    pub minutes: u32,
    /// That whoever asks knows what it does.
    pub confirm: bool,
    /// The gateway that it goes straight to, by way of the core; none for the ledger.
    #[serde(default)]
    pub gateway: Option<String>,
}

/// A request that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Whose glass.
    pub pseudonym: Pseudonym,
    /// Why, without blanks around it.
    pub reason: String,
    /// For how many seconds.
    pub seconds: u64,
}

/// On the ledger, or in force at a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub number: u64,
    /// First second, Unix time.
    pub from: u64,
    /// First second at which it holds no more.
    pub until: u64,
    /// The ledger's block; none where it went straight to a gateway.
    pub block: Option<u64>,
}

/// Why there is no emergency.
#[derive(Debug, Error)]
pub enum EmergencyError {
    /// The request makes no sense.
    #[error("{key}: {what}")]
    Invalid {
        /// Which field.
        key: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The configuration has no ledger or no domain key.
    #[error("this feed can't open emergencies: its configuration has no [ledger] with domain_key")]
    NoKey,
    /// It can't be accounted for, so it was not opened.
    #[error("the emergency was not opened, since it can't be recorded: {0}")]
    Journal(#[from] JournalError),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The ledger says no.
    #[error("the ledger refuses: {0}")]
    Refused(String),
    /// The ledger does not answer.
    #[error("the ledger does not answer, so the emergency was not opened: {0}")]
    Unreachable(ChainError),
    /// It was sent, and may or may not come.
    #[error("{0}")]
    Unknown(SendError),
    /// The gateway says no, in its own signed word.
    #[error("the gateway refuses: {0}")]
    GatewayRefused(String),
    /// It did not get to the gateway, or no word of the gateway came back.
    #[error("by way of the core: {0}")]
    Gateway(#[from] PolicyError),
}

impl EmergencyError {
    /// A label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::NoKey => "no_key",
            Self::Journal(_) => "journal",
            Self::Random => "random",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Unknown(_) => "unknown",
            Self::GatewayRefused(_) => "gateway_refused",
            Self::Gateway(_) => "gateway",
        }
    }
}

fn invalid(key: &'static str, what: impl Into<String>) -> EmergencyError {
    EmergencyError::Invalid { key, what: what.into() }
}

impl TryFrom<Request> for Checked {
    type Error = EmergencyError;

    fn try_from(request: Request) -> Result<Self, EmergencyError> {
        let digits: String = request.pseudonym.split_whitespace().collect();
        let digits = digits.strip_prefix("0x").unwrap_or(&digits);
        let mut pseudonym = [0; 32];
        hex::decode_to_slice(digits, &mut pseudonym).map_err(|_source| {
            invalid("pseudonym", "must be the 64 hexadecimal digits of the patient's card")
        })?;
        let reason = request.reason.trim();
        if reason.chars().count() < REASON_CHARS_MIN {
            return Err(invalid("reason", format!("must have at least {REASON_CHARS_MIN} characters")));
        }
        if reason.len() > REASON_BYTES_MAX {
            return Err(invalid("reason", format!("must have at most {REASON_BYTES_MAX} bytes")));
        }
        if !(1..=MINUTES_MAX).contains(&request.minutes) {
            return Err(invalid("minutes", format!("must be 1 to {MINUTES_MAX}")));
        }
        if !request.confirm {
            return Err(invalid("confirm", "must be true: the patient sees this access and its time"));
        }
        Ok(Self {
            pseudonym: Pseudonym(pseudonym),
            reason: reason.to_owned(),
            seconds: u64::from(request.minutes) * 60,
        })
    }
}

/// Who opened an emergency by an entry: on the ledger, or at a gateway that says that it is in force.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other entries open none")]
fn opened_by(what: &What) -> Option<&str> {
    match what {
        What::EmergencyOpened { user, .. } => Some(user),
        What::OfferDone { user, kind, why: None, .. } if kind == Kind::Emergency.as_str() => Some(user),
        _ => None,
    }
}

/// Who opened emergencies when, within the last day. Pure.
#[derive(Debug, Default)]
pub struct Openings(VecDeque<(i64, String)>);

impl Openings {
    /// From the journal.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut openings = Self::default();
        for entry in entries {
            let by = opened_by(&entry.what);
            by.map(|user| openings.note(user, entry.at_ms));
        }
        openings
    }

    /// One more; answers with how many this user has within a day, where that is often.
    pub fn note(&mut self, user: &str, at_ms: i64) -> Option<u64> {
        while self.0.front().is_some_and(|(then, _)| then.saturating_add(DAY_MS) <= at_ms)
            || self.0.len() >= REMEMBERED_MAX
        {
            self.0.pop_front();
        }
        self.0.push_back((at_ms, user.to_owned()));
        let count = self.0.iter().filter(|(_, by)| by == user).count();
        if count >= FREQUENT { u64::try_from(count).ok() } else { None }
    }
}

/// Emergencies of the journal that may still explain a reading, the newest [`HANDED_MAX`]; the ledger may not have them all.
fn handed(entries: &[Entry], now_ms: i64) -> Vec<EmergencyAccess> {
    let mut handed = Vec::new();
    for Entry { what, .. } in entries {
        if let What::Emergency { pseudonym, number, from, until, .. } = *what {
            hand(&mut handed, EmergencyAccess { pseudonym, from, until, number }, now_ms);
        } else if let What::EmergencyFailed { pseudonym, number, .. } = *what {
            // The last: an earlier one of the same second may be in force.
            let failed =
                handed.iter().rposition(|known| (known.pseudonym, known.number) == (pseudonym, number));
            failed.map(|at| handed.remove(at));
        }
    }
    handed
}

/// One more; those that ended long ago make room.
fn hand(handed: &mut Vec<EmergencyAccess>, emergency: EmergencyAccess, now_ms: i64) {
    handed.push(emergency);
    handed.retain(|known| known.until > seconds(now_ms.saturating_sub(DAY_MS)));
    let surplus = handed.len().saturating_sub(HANDED_MAX);
    handed.drain(..surplus);
}

/// Opens emergencies, one at a time: each takes the next number.
pub struct BreakGlass {
    chain: Chain,
    key: DomainKey,
    openings: Mutex<Openings>,
    handed: watch::Sender<Vec<EmergencyAccess>>,
}

impl std::fmt::Debug for BreakGlass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BreakGlass").finish_non_exhaustive()
    }
}

impl BreakGlass {
    /// With the domain's key, and what the journal says of earlier ones.
    #[must_use]
    pub fn new(chain: Chain, key: DomainKey, entries: &[Entry]) -> Self {
        let handed = watch::Sender::new(handed(entries, clock::now_ms()));
        Self { chain, key, openings: Mutex::new(Openings::of(entries)), handed }
    }

    /// Emergencies of the last day that were opened here, whether the ledger has them or not.
    #[must_use]
    pub fn handed(&self) -> watch::Receiver<Vec<EmergencyAccess>> {
        self.handed.subscribe()
    }

    /// Opens an emergency.
    ///
    /// # Errors
    /// [`EmergencyError`], which says whether anything was opened.
    pub async fn open(
        &self,
        user: &str,
        checked: &Checked,
        now_ms: i64,
        recorder: &Recorder,
    ) -> Result<Opened, EmergencyError> {
        let mut openings = self.openings.lock().await;
        let number = self.chain.emergency_number(&checked.pseudonym, &self.key.id()).await;
        let number = number.map_err(EmergencyError::Unreachable)?.saturating_add(1);
        let (emergency, opening) = self.prepare(user, checked, number, now_ms)?;
        let signed = self.key.sign_emergency(&emergency, &self.chain.domain());
        recorder.note(vec![opening]).await?;
        let sent = match self.chain.open_emergency(&signed, &RelayKey::random()).await {
            Ok(Mined { block, .. }) => Ok(Some(block)),
            Err(error) => Err(self.explain(error).await),
        };
        account(&mut openings, recorder, user, &emergency, now_ms, sent).await
    }

    /// Hands an emergency straight to a gateway by way of the core, where it holds at once, ledger and controller or not; the gateway sees
    /// that the ledger gets it. Nobody is asked for its number: the time in seconds is above every number that counts emergencies.
    ///
    /// # Errors
    /// [`EmergencyError`], which says whether it may be open.
    pub async fn open_at(
        &self,
        user: &str,
        checked: &Checked,
        now_ms: i64,
        recorder: &Recorder,
        (offerer, gateway): (&Offerer, &str),
    ) -> Result<Opened, EmergencyError> {
        offerer.knows(gateway)?;
        let mut openings = self.openings.lock().await;
        let (emergency, opening) = self.prepare(user, checked, seconds(now_ms), now_ms)?;
        let message = self.key.sign_emergency(&emergency, &self.chain.domain()).encode();
        recorder.note(vec![opening]).await?;
        let offer = Offer { kind: Kind::Emergency, message };
        let sent = match offerer.offer(recorder, user, gateway, offer).await {
            Ok(Verdict { refused: None, .. }) => Ok(None),
            Ok(Verdict { refused: Some(reason), .. }) => Err(EmergencyError::GatewayRefused(reason)),
            Err(error) => Err(error.into()),
        };
        if sent.is_ok() {
            self.handed.send_modify(|handed| hand(handed, (&emergency).into(), now_ms));
        }
        account(&mut openings, recorder, user, &emergency, now_ms, sent).await
    }

    /// The message, and what opens its commitments.
    fn prepare(
        &self,
        user: &str,
        checked: &Checked,
        number: u64,
        now_ms: i64,
    ) -> Result<(Emergency, What), EmergencyError> {
        let (clinician_salt, reason_salt) = (salt()?, salt()?);
        let pseudonym = checked.pseudonym;
        let from = seconds(now_ms);
        let until = from.saturating_add(checked.seconds);
        let emergency = Emergency {
            pseudonym,
            domain: self.key.id(),
            clinician: text_commitment(&clinician_salt, user),
            reason: text_commitment(&reason_salt, &checked.reason),
            from,
            until,
            number,
        };
        let opening = What::Emergency {
            user: user.to_owned(),
            pseudonym,
            reason: checked.reason.clone(),
            number,
            from,
            until,
            clinician_salt: hex::encode(clinician_salt),
            reason_salt: hex::encode(reason_salt),
        };
        Ok((emergency, opening))
    }

    /// In words for whoever stands at a bed.
    async fn explain(&self, error: SendError) -> EmergencyError {
        match error {
            SendError::Refused(refusal) => EmergencyError::Refused(self.words(&refusal).await),
            SendError::Chain(error) => EmergencyError::Unreachable(error),
            error @ (SendError::NotMined { .. } | SendError::Signer) => EmergencyError::Unknown(error),
        }
    }

    async fn words(&self, refusal: &Refusal) -> String {
        let words = match refusal.name.as_str() {
            "NotEmergencyParticipant" => match self.chain.participant(&self.key.id()).await {
                Ok(me) => match me.status {
                    None => "this hospital is not registered",
                    Some(RecipientStatus::Suspended) => "this hospital is suspended",
                    Some(RecipientStatus::Active) => "this hospital is not registered for emergencies",
                },
                Err(_) => "this hospital is not registered for emergencies, or is suspended",
            },
            "EmergencyAhead" => "this feed's clock is ahead of the ledger's; have it set",
            "EmergencyTooLong" => "it is longer than 4 h",
            "VersionNotRaised" => {
                "another emergency for this patient was opened at the same moment; try again"
            }
            _ => return refusal.to_string(),
        };
        words.to_owned()
    }
}

/// Unix time in seconds; before 1970 it is 0.
fn seconds(now_ms: i64) -> u64 {
    u64::try_from(now_ms.div_euclid(1000)).unwrap_or_default()
}

/// Notes what became of an emergency that was sent: the ledger's block, or none where a gateway has it, which the offer's own entry says.
async fn account(
    openings: &mut Openings,
    recorder: &Recorder,
    user: &str,
    emergency: &Emergency,
    now_ms: i64,
    sent: Result<Option<u64>, EmergencyError>,
) -> Result<Opened, EmergencyError> {
    let Emergency { pseudonym, from, until, number, .. } = *emergency;
    let user = user.to_owned();
    match sent {
        Ok(block) => {
            let frequent = openings.note(&user, now_ms);
            let opened = block.map(|block| What::EmergencyOpened {
                user: user.clone(),
                pseudonym,
                number,
                until,
                block,
            });
            let mut entries: Vec<_> = opened.into_iter().collect();
            if let Some(count) = frequent {
                warn!(count, "somebody opens emergencies often: to be reviewed in the journal");
                entries.push(What::Frequent { user, count });
            }
            // It is open, and what opens its commitments is kept: that this fails is logged, and changes nothing.
            if !entries.is_empty() {
                drop(recorder.note(entries).await);
            }
            Ok(Opened { number, from, until, block })
        }
        Err(error) => {
            let failed = What::EmergencyFailed { user, pseudonym, number, why: error.to_string() };
            drop(recorder.note(vec![failed]).await);
            Err(error)
        }
    }
}

fn salt() -> Result<[u8; 32], EmergencyError> {
    let mut salt = [0; 32];
    SystemRandom::new().fill(&mut salt).map_err(|_source| EmergencyError::Random)?;
    Ok(salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            pseudonym: "ab".repeat(32),
            reason: "found unconscious".into(),
            minutes: 30,
            confirm: true,
            gateway: None,
        }
    }

    #[test]
    fn a_request_is_checked_field_by_field() {
        let checked = Checked::try_from(request()).unwrap();
        assert_eq!((checked.pseudonym, checked.seconds), (Pseudonym([0xab; 32]), 1800));
        let spaced = Request { pseudonym: format!(" 0x{} \n", "ABab ".repeat(16)), ..request() };
        assert_eq!(Checked::try_from(spaced).unwrap().pseudonym, Pseudonym([0xab; 32]));
        let umlauts = Request { reason: format!("  {}\n", "ä".repeat(10)), ..request() };
        assert_eq!(Checked::try_from(umlauts).unwrap().reason, "ä".repeat(10));
        let cases = [
            (Request { pseudonym: "ab".repeat(31), ..request() }, "pseudonym: must be the 64"),
            (Request { pseudonym: "x".repeat(64), ..request() }, "pseudonym: "),
            (
                Request { reason: format!("{}   ", "x".repeat(9)), ..request() },
                "reason: must have at least 10",
            ),
            (Request { reason: "x".repeat(1001), ..request() }, "reason: must have at most 1000"),
            (Request { minutes: 0, ..request() }, "minutes: must be 1 to 240"),
            (Request { minutes: 241, ..request() }, "minutes: must be 1 to 240"),
            (Request { confirm: false, ..request() }, "confirm: must be true"),
        ];
        for (request, expected) in cases {
            let error = Checked::try_from(request).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert_eq!(error.reason(), "invalid");
        }
    }

    #[test]
    fn frequent_use_is_counted_by_user_and_day() {
        let mut openings = Openings::default();
        assert_eq!(openings.note("a", 0), None);
        assert_eq!(openings.note("b", 1), None);
        assert_eq!(openings.note("a", 2), None);
        assert_eq!(openings.note("a", 3), Some(3));
        assert_eq!(openings.note("a", 4), Some(4));
        assert_eq!(openings.note("b", 5), None);
        assert_eq!(openings.note("a", DAY_MS + 2), Some(3), "the first two are of another day");
        assert_eq!(openings.note("a", 3 * DAY_MS), None);
        for n in 0..2 * REMEMBERED_MAX {
            openings.note(&n.to_string(), 3 * DAY_MS);
        }
        assert_eq!(openings.0.len(), REMEMBERED_MAX);
    }

    #[test]
    fn earlier_openings_are_read_from_the_journal() {
        let opened = |at_ms| Entry {
            at_ms,
            what: What::EmergencyOpened {
                user: "a".into(),
                pseudonym: Pseudonym([1; 32]),
                number: 1,
                until: 9,
                block: 2,
            },
        };
        let failed = What::EmergencyFailed {
            user: "a".into(),
            pseudonym: Pseudonym([1; 32]),
            number: 2,
            why: "no".into(),
        };
        let offered = |kind: &str, why: Option<&str>| {
            let (user, gateway) = ("b".to_owned(), "gateway-1".to_owned());
            let what = What::OfferDone { user, gateway, kind: kind.into(), why: why.map(str::to_owned) };
            Entry { at_ms: 3, what }
        };
        let handed = [
            offered("emergency", None),
            offered("revocation", None),
            offered("emergency", Some("not_connected")),
            offered("emergency", None),
        ];
        let ledger = [opened(1), Entry { at_ms: 2, what: failed }, opened(3)];
        let mut openings = Openings::of(&[&ledger[..], &handed].concat());
        assert_eq!(openings.note("a", 4), Some(3));
        assert_eq!(openings.note("b", 4), Some(3), "straight at a gateway they count as well");
    }
}
