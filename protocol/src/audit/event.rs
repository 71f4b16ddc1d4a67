//! What an entry says.

use serde::{Deserialize, Serialize};

use super::tally::Delivered;
use crate::id::{DataClass, DeviceId, PatientId, RecipientId};
use crate::key::TREE_DEPTH;
use crate::policy::Pseudonym;

fn leaf() -> u8 {
    TREE_DEPTH
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_leaf(depth: &u8) -> bool {
    *depth == TREE_DEPTH
}

/// What happened, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unix time in milliseconds, by the clock of who wrote it.
    pub at_ms: i64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What an access rests on, as the ledger says it at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessBasis {
    /// The patient's grant.
    Consent,
    /// A broken glass.
    Emergency,
    /// A grant or an emergency that has ended; shown is what was opened before.
    Ended,
    /// Not known: no relationship is configured for this patient, or the ledger was not read.
    Unknown,
}

/// A time of one patient's class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Whose.
    pub patient: PatientId,
    /// Which class.
    pub class: DataClass,
    /// From this time on, Unix microseconds by the gateway's clock.
    pub from_us: i64,
    /// Until before this time.
    pub until_us: i64,
}

/// Why a grant opens no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The patient revoked it.
    Revoked,
    /// A later grant of the relationship took its place.
    Replaced,
    /// Its own end.
    Expired,
    /// The governors suspended the grantee.
    Suspended,
    /// The policy is older than the grant allows.
    Stale,
    /// The newest bundle does not have it.
    LeftOut,
}

/// What happened. Feeds note who looked and what they received, gateways what came into force and for whom they wrapped keys, the
/// core what it delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// Somebody logged in.
    Login {
        /// Who.
        user: String,
    },
    /// A patient's readings were shown to somebody.
    Look {
        /// To whom.
        user: String,
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// The oldest of them, Unix microseconds by the gateway's clock.
        from_us: i64,
        /// The newest; none while it goes on, until [`What::LookEnded`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_us: Option<i64>,
        /// Why they might.
        basis: AccessBasis,
    },
    /// A look that went on has ended.
    LookEnded {
        /// Whose look.
        user: String,
        /// At whom.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// The oldest reading.
        from_us: i64,
        /// The newest.
        until_us: i64,
    },
    /// A command is about to write out what the core holds.
    Export {
        /// The account that runs it, by its number.
        uid: u32,
        /// Which part of it; none where it is all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Part>,
    },
    /// A patient's readings are written out by that command: once before the first of them, and once with the newest when it ends.
    Exported {
        /// The account that runs it, by its number.
        uid: u32,
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// The oldest of them, Unix microseconds by the gateway's clock.
        from_us: i64,
        /// The newest; none while it goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_us: Option<i64>,
        /// Why they might be read.
        basis: AccessBasis,
    },
    /// Somebody was shown entries of the audit log itself, or may page through them.
    LogRead {
        /// Who.
        user: String,
        /// The oldest of them, by its number.
        first: u64,
        /// The newest.
        last: u64,
        /// Why, as they say; none where they don't.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An emergency is about to be opened: with this its commitments can be shown to be what they are.
    Emergency {
        /// The clinician, as committed.
        user: String,
        /// Whose glass.
        pseudonym: Pseudonym,
        /// As committed.
        reason: String,
        /// Of this pseudonym.
        number: u64,
        /// First second, Unix time.
        from: u64,
        /// First second at which it holds no more.
        until: u64,
        /// Salt of the clinician's commitment, 32 bytes in hexadecimal.
        clinician_salt: String,
        /// Salt of the reason's.
        reason_salt: String,
    },
    /// It is on the ledger.
    EmergencyOpened {
        /// The clinician.
        user: String,
        /// Whose glass.
        pseudonym: Pseudonym,
        /// Which one.
        number: u64,
        /// First second at which it holds no more.
        until: u64,
        /// The ledger's block.
        block: u64,
    },
    /// It is not on the ledger, or that is not known.
    EmergencyFailed {
        /// The clinician.
        user: String,
        /// Whose glass.
        pseudonym: Pseudonym,
        /// Which one.
        number: u64,
        /// Why.
        why: String,
    },
    /// Staff are about to act on a gateway's watch.
    Command {
        /// Who.
        user: String,
        /// Whose watch.
        patient: PatientId,
        /// What.
        action: String,
        /// The command's number.
        sequence: u64,
    },
    /// What became of it.
    CommandDone {
        /// Who.
        user: String,
        /// Whose watch.
        patient: PatientId,
        /// What.
        action: String,
        /// The command's number.
        sequence: u64,
        /// None where the watch confirmed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Somebody is about to hand policy to a gateway by way of the core: a bundle, a revocation or an emergency that carries its own authority.
    Offered {
        /// Who.
        user: String,
        /// The gateway's name.
        gateway: String,
        /// `bundle`, `revocation` or `emergency`.
        kind: String,
    },
    /// What became of it.
    OfferDone {
        /// Who.
        user: String,
        /// The gateway's name.
        gateway: String,
        /// As above.
        kind: String,
        /// None where the gateway says that it is in force.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Somebody opens emergencies often: for review.
    Frequent {
        /// Who.
        user: String,
        /// How many within a day, this one among them.
        count: u64,
    },
    /// Segments of a chain are missing, and did not come for a while.
    Gap {
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// Lowest missing sequence.
        first: u64,
        /// Highest missing sequence.
        last: u64,
    },
    /// A gateway told that segments of a chain may be missing.
    GapTold {
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// Lowest such sequence.
        first: u64,
        /// Highest such sequence.
        last: u64,
        /// Why: `expired` or `damaged`, as in the gap record.
        why: String,
    },
    /// A feed received records from the core.
    Received {
        /// For which domain.
        recipient: RecipientId,
        /// Whose and what.
        #[serde(flatten)]
        delivered: Delivered,
    },
    /// The core delivered records to a feed.
    Fetched {
        /// Out of whose queue.
        recipient: RecipientId,
        /// The feed's name in its certificate.
        feed: String,
        /// Whose and what.
        #[serde(flatten)]
        delivered: Delivered,
    },
    /// A gateway sealed an epoch's key to recipients, or a node above epochs of the past.
    Wrapped {
        /// Whose.
        patient: PatientId,
        /// Of which class.
        class: DataClass,
        /// Raised by each loss of access.
        generation: u32,
        /// Minutes of Unix time; the first, where it is a node above several.
        epoch: u32,
        /// Of the node; [`TREE_DEPTH`] is one epoch.
        #[serde(default = "leaf", skip_serializing_if = "is_leaf")]
        depth: u8,
        /// To whom.
        recipients: Vec<RecipientId>,
    },
    /// A policy epoch came into force at a gateway.
    PolicyInForce {
        /// Which.
        epoch: u64,
        /// The ledger header's number.
        header: u64,
        /// By which path.
        origin: String,
    },
    /// A bundle, a revocation or an emergency was refused at a gateway.
    PolicyRefused {
        /// The reason's name.
        reason: String,
        /// By which path it came.
        origin: String,
        /// How many, since the last such entry.
        times: u64,
    },
    /// Nothing was heard of the ledger for too long: nobody new may open.
    PolicyStale {
        /// The newest header's time, Unix seconds.
        as_of: u64,
    },
    /// The ledger was heard again.
    PolicyFresh,
    /// A grant opens at a gateway.
    GrantBegan {
        /// Whose.
        patient: PatientId,
        /// To whom.
        recipient: RecipientId,
        /// Of the grant.
        version: u64,
        /// First second at which it holds no more.
        until: u64,
    },
    /// A grant opens no more.
    GrantEnded {
        /// Whose.
        patient: PatientId,
        /// To whom.
        recipient: RecipientId,
        /// Of the grant.
        version: u64,
        /// Why.
        why: Ending,
    },
    /// A revocation is in force at a gateway.
    Revoked {
        /// Whose.
        patient: PatientId,
        /// Up to and including.
        version: u64,
        /// Whose word it is: `ledger`, `wallet` or `button`.
        by: String,
    },
    /// The ledger has a revocation that was handed to the gateway.
    RevocationAnchored {
        /// Whose.
        patient: PatientId,
    },
    /// Somebody broke the glass, as the gateway verified it.
    EmergencyBegan {
        /// Whose.
        patient: PatientId,
        /// Which domain.
        recipient: RecipientId,
        /// Of this pseudonym.
        number: u64,
        /// First second at which it holds no more.
        until: u64,
    },
    /// An emergency is over.
    EmergencyEnded {
        /// Whose.
        patient: PatientId,
        /// Which domain.
        recipient: RecipientId,
        /// Of this pseudonym.
        number: u64,
    },
    /// A display in the home began to read what others send.
    DisplayBegan {
        /// Who put it there: whose device it is.
        patient: PatientId,
        /// Which.
        display: DeviceId,
        /// What it reads: a topic filter.
        filter: String,
    },
    /// It reads that no more.
    DisplayEnded {
        /// As above.
        patient: PatientId,
        /// Which.
        display: DeviceId,
        /// What it read.
        filter: String,
    },
    /// A patient's root was split into shares at a gateway.
    RootShared {
        /// Whose.
        patient: PatientId,
        /// How many it takes.
        threshold: u8,
        /// Of how many.
        shares: u8,
    },
    /// A patient's root was put together from shares at a gateway.
    RootRestored {
        /// Whose.
        patient: PatientId,
    },
    /// A patient's order of erasure was taken at a gateway.
    ErasureOrdered {
        /// Whose.
        patient: PatientId,
    },
    /// A patient's root was destroyed at a gateway.
    RootErased {
        /// Whose.
        patient: PatientId,
    },
    /// Staff acted on a gateway's watch.
    Commanded {
        /// Whose.
        patient: PatientId,
        /// Which domain.
        recipient: RecipientId,
        /// Who, by the domain's word.
        clinician: String,
        /// What they did.
        action: String,
        /// None where it was done; else why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
}
