//! What a stream tells of gateways' watches: each patient's newest standing, and whether their gateway is heard.

use std::collections::BTreeMap;
use std::time::Instant;

use caregate_protocol::alarm::view::PatientView;
use caregate_protocol::id::PatientId;

use crate::bedside::{self, Bedside};
use crate::message::Message;

/// What a reader was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// When the newest standing that it knows was said, and whether that was provisional.
    standings: BTreeMap<PatientId, (i64, bool)>,
    contacts: BTreeMap<PatientId, bedside::Told>,
}

impl Told {
    /// What the reader does not know yet.
    pub(super) fn news(&mut self, bedside: &Bedside, now: Instant) -> Vec<Message<'static>> {
        let mut news = Vec::new();
        for (patient, (standing, provisional)) in bedside.standings() {
            let told = (standing.at_us, provisional);
            if self.standings.insert(patient, told) != Some(told) {
                let view = Box::new(PatientView::new(patient, &standing));
                news.push(Message::Standing { view, provisional });
            }
        }
        for (patient, told) in bedside.contacts(now) {
            if self.contacts.insert(patient, told) != Some(told) {
                let bedside::Told { heard, policy } = told;
                news.push(Message::Contact { patient, heard, policy });
            }
        }
        news
    }
}
