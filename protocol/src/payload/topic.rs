//! The topic tree, version 1: `vitals/v1/{device}/num/{metric}`, `wave/{channel}`, `event/{type}`, `meta`, `status`, and
//! `BTtoMQTT/{MAC}` of a bridge whose base topic is `vitals/v1/{device}`.
//!
//! No patient is in a topic; the gateway knows which device is whose.

use super::DecodeError;
use crate::code::{self, Kind, Quantity};
use crate::id::{DeviceId, StreamName};

/// What every topic of this version begins with.
pub const PREFIX: &str = "vitals/v1/";
/// In place of a metric: a SenML pack whose records name their own metrics.
pub const PACK: &str = "senml";
/// In place of a metric: an Open mHealth data point, which names its own.
pub const DATA_POINT: &str = "omh";
/// The level above a device's MAC in a bridge's topics (OpenMQTTGateway, Theengs).
pub const BRIDGE: &str = "BTtoMQTT";

/// A topic, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// The device that the topic names. Whether it is the sender is for the gateway to check.
    pub device: DeviceId,
    /// What is below it.
    pub leaf: Leaf,
}

/// What a topic announces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Leaf {
    /// `num/{metric}`; none for `num/senml`.
    Numeric(Option<&'static Quantity>),
    /// `wave/{channel}`.
    Waveform(&'static Quantity),
    /// `event/{type}`.
    Event(&'static Quantity),
    /// `num/omh`.
    DataPoint,
    /// `BTtoMQTT/{MAC}`: what a bridge decoded.
    Bridge,
    /// `meta`, retained: who made the device.
    Meta,
    /// `status`, retained, and the last will.
    Status,
}

/// Takes a topic apart.
///
/// # Errors
/// Another prefix, another number of levels, a device or stream name that is none, a stream that the code table lacks.
pub fn parse(topic: &str) -> Result<Topic, DecodeError> {
    let rest = topic.strip_prefix(PREFIX).ok_or(DecodeError::TopicPrefix)?;
    let mut levels = rest.split('/');
    let device = DeviceId::new(levels.next().unwrap_or_default())?;
    let leaf = match (levels.next(), levels.next(), levels.next()) {
        (Some("num"), Some(PACK), None) => Leaf::Numeric(None),
        (Some("num"), Some(DATA_POINT), None) => Leaf::DataPoint,
        (Some(BRIDGE), Some(_), None) => Leaf::Bridge,
        (Some("num"), Some(name), None) => Leaf::Numeric(Some(quantity(Kind::Numeric, name)?)),
        (Some("wave"), Some(name), None) => Leaf::Waveform(quantity(Kind::Waveform, name)?),
        (Some("event"), Some(name), None) => Leaf::Event(quantity(Kind::Event, name)?),
        (Some("meta"), None, None) => Leaf::Meta,
        (Some("status"), None, None) => Leaf::Status,
        (Some(_) | None, _, _) => return Err(DecodeError::TopicShape),
    };
    Ok(Topic { device, leaf })
}

/// The row of this kind and name.
pub(super) fn quantity(kind: Kind, name: &str) -> Result<&'static Quantity, DecodeError> {
    match code::by_name(name) {
        Some(quantity) if quantity.kind == kind => Ok(quantity),
        Some(_) | None => {
            Err(DecodeError::UnknownStream { kind: kind.as_str(), name: StreamName::new(name)? })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdError;

    fn leaf(topic: &str) -> Result<Leaf, DecodeError> {
        parse(topic).map(|topic| {
            assert_eq!(topic.device.as_str(), "hub-1");
            topic.leaf
        })
    }

    #[test]
    fn each_leaf() {
        let row = |name| code::by_name(name).unwrap();
        assert_eq!(leaf("vitals/v1/hub-1/num/spo2"), Ok(Leaf::Numeric(Some(row("spo2")))));
        assert_eq!(leaf("vitals/v1/hub-1/num/senml"), Ok(Leaf::Numeric(None)));
        assert_eq!(leaf("vitals/v1/hub-1/num/omh"), Ok(Leaf::DataPoint));
        assert_eq!(leaf("vitals/v1/hub-1/BTtoMQTT/A4C138000001"), Ok(Leaf::Bridge));
        assert_eq!(leaf("vitals/v1/hub-1/wave/ecg-ii"), Ok(Leaf::Waveform(row("ecg-ii"))));
        assert_eq!(leaf("vitals/v1/hub-1/event/fall"), Ok(Leaf::Event(row("fall"))));
        assert_eq!(leaf("vitals/v1/hub-1/meta"), Ok(Leaf::Meta));
        assert_eq!(leaf("vitals/v1/hub-1/status"), Ok(Leaf::Status));
    }

    #[test]
    fn what_is_no_topic_of_ours() {
        assert_eq!(parse("vitals/v2/hub-1/meta"), Err(DecodeError::TopicPrefix));
        assert_eq!(parse(""), Err(DecodeError::TopicPrefix));
        for topic in
            ["vitals/v1/hub-1", "vitals/v1/hub-1/num", "vitals/v1/hub-1/num/spo2/x", "vitals/v1/hub-1/x/y"]
        {
            assert_eq!(parse(topic), Err(DecodeError::TopicShape), "{topic}");
        }
        assert_eq!(
            parse("vitals/v1//num/spo2"),
            Err(DecodeError::Name(IdError::Length { what: "device", len: 0 }))
        );
        assert_eq!(
            parse("vitals/v1/a b/num/spo2"),
            Err(DecodeError::Name(IdError::Character { what: "device", at: 1 }))
        );
        // A channel is no metric.
        assert_eq!(
            parse("vitals/v1/hub-1/num/ecg-ii").unwrap_err().to_string(),
            "metric ecg-ii is not in the code table"
        );
    }
}
