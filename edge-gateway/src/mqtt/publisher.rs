//! Messages of the gateway itself to displays in the home: alarms, its own state.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::access::GATEWAY_ROOT;
use super::hub::Message;
use super::limits::TOPIC_BYTES_MAX;
use super::server::Server;
use super::wire::{Properties, QoS};
use crate::watch::Publish;

/// Largest payload: an alarm is a few hundred bytes, and a retained one must fit what the gateway may retain.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024;

/// Why a message of the gateway's own was not published: a fault of the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishRefused {
    /// Not below [`GATEWAY_ROOT`], with wildcards, or too long.
    #[error("{0:?} is no topic below {GATEWAY_ROOT}")]
    Topic(String),
    /// Larger than [`PAYLOAD_BYTES_MAX`].
    #[error("{0} bytes, allowed are {PAYLOAD_BYTES_MAX}")]
    TooLarge(usize),
}

/// A handle by which parts of the gateway publish below `gateway/v1/`. Cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Server>);

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self(server)
    }

    /// Delivers to all who subscribed, at QoS 1, and returns at once; `retain` keeps it for those who come later (an empty
    /// payload forgets the topic's). Nothing goes to the pipeline.
    ///
    /// # Errors
    /// [`PublishRefused`] where topic or payload can't be.
    pub fn publish(&self, topic: &str, payload: Bytes, retain: bool) -> Result<(), PublishRefused> {
        let below = topic.strip_prefix(GATEWAY_ROOT).is_some_and(|rest| !rest.is_empty());
        if !below || topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#', '\0']) {
            return Err(PublishRefused::Topic(topic.to_owned()));
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(PublishRefused::TooLarge(payload.len()));
        }
        let message = Message {
            topic: topic.to_owned(),
            payload,
            qos: QoS::AtLeastOnce,
            retain,
            properties: Properties::default(),
            expires: None,
            publisher: None,
        };
        self.0.with_hub(|hub| hub.publish(&Arc::new(message), self.0.now()));
        Ok(())
    }
}

impl Publish for Publisher {
    fn publish(&self, topic: &str, payload: Vec<u8>) {
        if let Err(refused) = Self::publish(self, topic, payload.into(), true) {
            tracing::error!(%refused, "an alarm was not published");
        }
    }
}
