//! All that the alarm lane's connection asks of the core, beside what it carries.

use caregate_protocol::uplink::Frame;

use super::asking::{self, Asking};
use super::connection::Staff;
use super::learning::{self, Learning};

/// The questions of one connection; none on the other lanes'.
#[derive(Debug)]
pub(super) struct Questions {
    asking: Option<Asking>,
    learning: Option<Learning>,
}

impl Questions {
    pub(super) fn new(staff: Option<&Staff>) -> Self {
        Self {
            asking: staff.map(|staff| Asking::new(staff.questions.0.clone())),
            learning: staff.map(|staff| Learning::new(staff.questions.1.clone())),
        }
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Frame {
        tokio::select! {
            request = asking::next(&mut self.asking) => Frame::Erase { request: request.to_vec() },
            question = learning::next(&mut self.learning) => question,
        }
    }

    /// What the core says, if it is an answer.
    pub(super) async fn heard(&mut self, frame: &Frame) {
        if let Some(asking) = &mut self.asking {
            asking.heard(frame).await;
        }
        if let Some(learning) = &mut self.learning {
            learning.heard(frame).await;
        }
    }
}
