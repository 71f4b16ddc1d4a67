//! The stream's messages, as `docs/feed-api.md` has them.

use caregate_protocol::alarm::view::PatientView;
use caregate_protocol::beat::PolicyState;
use caregate_protocol::code::by_number;
use caregate_protocol::gap::Missing;
use caregate_protocol::id::{DataClass, DeviceId, PatientId, StreamName};
use caregate_protocol::policy::RelationshipId;
use caregate_protocol::reading::Value;
use serde::{Deserialize, Serialize};

use crate::access::Basis;
use crate::ledger::{Known, State};
use crate::opener::ChainState;
use crate::ring::{Entry, Sent};
use crate::trail::Line;

/// What alarm limits and scores apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// From 16 years.
    Adult,
    /// Below.
    Child,
    /// In the first 28 days.
    Neonate,
}

/// Who lies where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bed {
    /// What staff call the place.
    pub bed: String,
    /// The pseudonym of who lies there.
    pub patient: PatientId,
    /// Adult, child or neonate.
    pub category: Category,
    /// The patient's relationship with this domain, for what access rests on; not for pages.
    #[serde(default, skip_serializing)]
    pub relationship: Option<RelationshipId>,
}

/// One message of the stream.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Message<'a> {
    /// The first one.
    Hello {
        /// Unix time in milliseconds by the feed's clock.
        server_ms: i64,
        /// The number of the next reading to be opened.
        next: u64,
        /// All beds.
        beds: &'a [Bed],
    },
    /// An opened reading.
    Reading(Box<ReadingMessage<'a>>),
    /// How a chain stands.
    Chain {
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// Highest verified sequence.
        verified: u64,
        /// Lowest missing range of which the gateway has said nothing, inclusive.
        gap: Option<(u64, u64)>,
        /// The newest range of which it said that it is missing.
        told: Option<ToldMessage>,
    },
    /// Whether the core is connected.
    Link {
        /// `up` or `down`.
        core: &'static str,
    },
    /// What access to a patient rests on.
    Access {
        /// Whose.
        patient: PatientId,
        /// On what.
        #[serde(flatten)]
        basis: Basis,
    },
    /// Whether the ledger is followed.
    Ledger {
        /// `starting`, `following` or `away`.
        state: &'static str,
        /// Since when it is away, Unix milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        since_ms: Option<i64>,
        /// `no_key`: emergencies can't be opened here; `refused`: the ledger would refuse them; `ready`.
        break_glass: &'static str,
    },
    /// A reading that is not durable at the core: as `Reading`, without a number. It comes again when it is.
    Provisional(Box<ReadingMessage<'a>>),
    /// Not of the stream, but of a history: as `Reading`, without a number.
    Past(Box<ReadingMessage<'a>>),
    /// What the gateway's watch says of a patient.
    Standing {
        /// All of it.
        #[serde(flatten)]
        view: Box<PatientView>,
        /// It is not durable at the core.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        provisional: bool,
    },
    /// Whether a patient's gateway is heard.
    Contact {
        /// Whose.
        patient: PatientId,
        /// It sent a heartbeat a moment ago.
        heard: bool,
        /// How the policy stood by which it seals, by its newest heartbeat; null before the first.
        policy: Option<PolicyState>,
    },
    /// A line of the list of who looked and what changed.
    Audit(&'a Line),
}

/// Segments that the gateway itself said are missing.
#[derive(Debug, Serialize)]
pub struct ToldMessage {
    why: &'static str,
    first: u64,
    last: u64,
    /// When they were sealed, Unix milliseconds; none where that isn't known.
    from_ms: Option<i64>,
    to_ms: Option<i64>,
}

impl From<Missing> for ToldMessage {
    fn from(missing: Missing) -> Self {
        let Missing { why, first, last, from_us, to_us, .. } = missing;
        let ms = |us: i64| (us != 0).then(|| us.div_euclid(1000));
        Self { why: why.as_str(), first, last, from_ms: ms(from_us), to_ms: ms(to_us) }
    }
}

/// An opened reading.
#[derive(Debug, Serialize)]
pub struct ReadingMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    /// Readings of lower numbers are still to come.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ahead: bool,
    patient: PatientId,
    class: DataClass,
    segment: u64,
    device: &'a DeviceId,
    stream: &'a StreamName,
    seq: Option<u64>,
    sensor_us: Option<i64>,
    gateway_us: i64,
    flags: u32,
    opened_ms: i64,
    code: CodeMessage<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    numeric: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wave: Option<WaveMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<bool>,
}

#[derive(Debug, Serialize)]
struct CodeMessage<'a> {
    name: &'a str,
    loinc: Option<&'static str>,
    mdc: Option<u32>,
    display: &'a str,
    unit: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct WaveMessage<'a> {
    t0_us: i64,
    period_ns: u32,
    scale: f64,
    offset: f64,
    samples: &'a [i16],
}

impl<'a> ReadingMessage<'a> {
    fn new(entry: &'a Entry, n: Option<u64>) -> Self {
        let reading = &entry.reading;
        // A quantity that this feed's table does not know yet is shown under its stream's name.
        let unknown = CodeMessage {
            name: reading.stream.as_str(),
            loinc: None,
            mdc: None,
            display: reading.stream.as_str(),
            unit: None,
        };
        let code = by_number(entry.quantity()).map_or(unknown, |q| CodeMessage {
            name: q.name,
            loinc: q.loinc.first().copied(),
            mdc: q.mdc,
            display: q.display,
            unit: q.unit,
        });
        let (mut numeric, mut wave, mut event) = (None, None, None);
        match &reading.value {
            Value::Numeric { value, .. } => numeric = Some(*value),
            Value::Waveform { t0_us, period_ns, scale, offset, samples, .. } => {
                let (t0_us, period_ns, scale, offset) = (*t0_us, *period_ns, *scale, *offset);
                wave = Some(WaveMessage { t0_us, period_ns, scale, offset, samples });
            }
            // A standing never gets into the ring (`feed.rs`).
            Value::Event { .. } | Value::Standing(_) => event = Some(true),
        }
        Self {
            n,
            ahead: false,
            patient: entry.patient,
            class: entry.class,
            segment: entry.segment,
            device: &reading.device,
            stream: &reading.stream,
            seq: reading.seq,
            sensor_us: reading.sensor_time_us,
            gateway_us: reading.gateway_time_us,
            flags: reading.flags,
            opened_ms: entry.opened_ms,
            code,
            numeric,
            wave,
            event,
        }
    }
}

impl<'a> From<&'a Entry> for Message<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self::Reading(Box::new(ReadingMessage::new(entry, Some(entry.n))))
    }
}

impl<'a> Message<'a> {
    /// A reading, and whether it goes ahead of others.
    #[must_use]
    pub fn sent(sent: &'a Sent) -> Self {
        let reading = ReadingMessage::new(&sent.entry, Some(sent.entry.n));
        Self::Reading(Box::new(ReadingMessage { ahead: sent.ahead, ..reading }))
    }

    /// A reading that is not durable at the core.
    #[must_use]
    pub fn provisional(entry: &'a Entry) -> Self {
        Self::Provisional(Box::new(ReadingMessage::new(entry, None)))
    }

    /// A reading of a history.
    #[must_use]
    pub fn past(entry: &'a Entry) -> Self {
        Self::Past(Box::new(ReadingMessage::new(entry, None)))
    }

    /// How a chain stands.
    #[must_use]
    pub fn chain((patient, class): (PatientId, DataClass), state: ChainState) -> Self {
        let ChainState { verified, gap, told } = state;
        Self::Chain { patient, class, verified, gap, told: told.map(ToldMessage::from) }
    }

    /// Whether the core is connected.
    #[must_use]
    pub fn link(up: bool) -> Self {
        Self::Link { core: if up { "up" } else { "down" } }
    }

    /// Whether the ledger is followed; `key` is whether emergencies can be signed here.
    #[must_use]
    pub fn ledger(known: &Known, key: bool) -> Self {
        let (state, since_ms) = match known.state {
            State::Starting => ("starting", None),
            State::Following => ("following", None),
            State::Away(since_ms) => ("away", Some(since_ms)),
        };
        let break_glass = match (key, known.view.may_break_glass || !known.read) {
            (false, _) => "no_key",
            (true, false) => "refused",
            (true, true) => "ready",
        };
        Self::Ledger { state, since_ms, break_glass }
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let Ok(text) = serde_json::to_string(self)
            .map_err(|_source| unreachable!("text keys and numbers are always JSON"));
        text
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::gap;
    use caregate_protocol::segment::SegmentHash;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::access::{View, Why};
    use crate::ring::entries;
    use crate::ring::tests::{numeric, segment};

    fn parsed(message: &Message<'_>) -> Json {
        serde_json::from_str(&message.json()).unwrap()
    }

    #[test]
    fn messages_are_as_documented() {
        let patient = PatientId([1; 16]);
        let beds = [Bed { bed: "Bed 1".into(), patient, category: Category::Adult, relationship: None }];
        let hex = "01".repeat(16);
        assert_eq!(
            parsed(&Message::Hello { server_ms: 5, next: 512, beds: &beds }),
            json!({"type":"hello","server_ms":5,"next":512,"beds":[{"bed":"Bed 1","patient":hex,"category":"adult"}]})
        );
        let reading = numeric("heart-rate", 1, 72.0, Some(1_790_000_000_000_000));
        let entry = entries(segment(45, vec![reading]), 512, 1_790_000_000_012).next().unwrap();
        assert_eq!(
            parsed(&Message::from(&entry)),
            json!({"type":"reading","n":512,"patient":hex,"class":"vitals","segment":45,"device":"monitor-1",
                "stream":"heart-rate","seq":7,"sensor_us":1_790_000_000_000_000_i64,"gateway_us":1_790_000_000_001_000_i64,
                "flags":0,"opened_ms":1_790_000_000_012_i64,"numeric":72.0,
                "code":{"name":"heart-rate","loinc":"8867-4","mdc":147_842,"display":"Heart rate","unit":"/min"}})
        );
        let provisional = parsed(&Message::provisional(&entry));
        assert_eq!((&provisional["type"], &provisional["segment"]), (&json!("provisional"), &json!(45)));
        assert!(provisional.get("n").is_none() && provisional["numeric"] == json!(72.0));
        let state = ChainState { verified: 45, gap: Some((3, 4)), told: None };
        assert_eq!(
            parsed(&Message::chain((patient, DataClass::Vitals), state)),
            json!({"type":"chain","patient":hex,"class":"vitals","verified":45,"gap":[3,4],"told":null})
        );
        let hash = SegmentHash::NONE;
        let missing =
            Missing { why: gap::Why::Expired, first: 5, last: 9, from_us: 7_000_999, to_us: 0, hash };
        let state = ChainState { verified: 45, gap: None, told: Some(missing) };
        assert_eq!(
            parsed(&Message::chain((patient, DataClass::Vitals), state))["told"],
            json!({"why":"expired","first":5,"last":9,"from_ms":7000,"to_ms":null})
        );
        assert_eq!(parsed(&Message::link(true)), json!({"type":"link","core":"up"}));
    }

    #[test]
    fn what_the_ledger_says_is_as_documented() {
        let (patient, hex) = (PatientId([1; 16]), "01".repeat(16));
        let access = |basis| parsed(&Message::Access { patient, basis });
        let cases = [
            (Basis::Unknown, json!({"type":"access","patient":hex,"basis":"unknown"})),
            (Basis::None, json!({"type":"access","patient":hex,"basis":"none"})),
            (Basis::Pending { from: 5 }, json!({"type":"access","patient":hex,"basis":"pending","from":5})),
            (Basis::Consent { until: 6 }, json!({"type":"access","patient":hex,"basis":"consent","until":6})),
            (
                Basis::Emergency { until: 7 },
                json!({"type":"access","patient":hex,"basis":"emergency","until":7}),
            ),
            (
                Basis::Ended { at: 8, why: Why::EmergencyOver },
                json!({"type":"access","patient":hex,"basis":"ended","at":8,"why":"emergency_over"}),
            ),
        ];
        for (basis, expected) in cases {
            assert_eq!(access(basis), expected);
        }
        let mut known = Known { state: State::Away(9), view: View::default(), read: false };
        let ledger = |known: &Known, key| parsed(&Message::ledger(known, key));
        assert_eq!(
            ledger(&known, true),
            json!({"type":"ledger","state":"away","since_ms":9,"break_glass":"ready"})
        );
        (known.state, known.read) = (State::Following, true);
        assert_eq!(
            ledger(&known, true),
            json!({"type":"ledger","state":"following","break_glass":"refused"})
        );
        assert_eq!(ledger(&known, false)["break_glass"], "no_key");
        let line = Line {
            id: 3,
            at_ms: 4,
            what: "look",
            user: Some("nurse".into()),
            count: Some(2),
            ..Line::default()
        };
        assert_eq!(
            parsed(&Message::Audit(&line)),
            json!({"type":"audit","id":3,"at_ms":4,"what":"look","user":"nurse","count":2})
        );
    }

    #[test]
    fn waveforms_and_events() {
        let mut wave = numeric("ecg-ii", 0, 0.0, None);
        wave.value = Value::Waveform {
            quantity: 258,
            t0_us: 9,
            period_ns: 2_777_778,
            scale: 0.005,
            offset: -5.12,
            samples: vec![995, -1],
        };
        let mut fall = numeric("fall", 0, 0.0, None);
        fall.value = Value::Event { quantity: 513 };
        let unknown = numeric("new-thing", 60_000, 1.0, None);
        let all: Vec<_> = entries(segment(1, vec![wave, fall, unknown]), 0, 5).collect();
        let wave = parsed(&Message::from(&all[0]));
        assert_eq!(
            wave["wave"],
            json!({"t0_us":9,"period_ns":2_777_778,"scale":0.005,"offset":-5.12,"samples":[995,-1]})
        );
        assert!(wave.get("numeric").is_none() && wave["sensor_us"].is_null());
        let fall = parsed(&Message::from(&all[1]));
        assert_eq!(
            (&fall["event"], &fall["code"]["mdc"], &fall["code"]["unit"]),
            (&json!(true), &json!(8_519_681), &Json::Null)
        );
        assert_eq!(parsed(&Message::from(&all[2]))["code"]["name"], "new-thing");
    }
}
