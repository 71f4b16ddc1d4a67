//! Which topics are whose: `vitals/v1/{device}/…`. The device is named by the topic, the patient never is.

use caregate_protocol::id::DeviceId;

/// The root of all topics that the gateway takes.
pub const ROOT: &str = "vitals/v1/";

/// The device that a topic under [`ROOT`] names, if it names a well-formed one and has at least one level below it.
#[must_use]
pub fn device_of(topic: &str) -> Option<DeviceId> {
    let (device, rest) = topic.strip_prefix(ROOT)?.split_once('/')?;
    if rest.is_empty() { None } else { DeviceId::new(device).ok() }
}

/// Whether `device` may publish to `topic`: only to `vitals/v1/{its own id}/…`.
#[must_use]
pub fn is_own(device: &DeviceId, topic: &str) -> bool {
    topic
        .strip_prefix(ROOT)
        .and_then(|rest| rest.strip_prefix(device.as_str()))
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_owns_its_tree_and_nothing_else() {
        let device = DeviceId::new("monitor-1").unwrap();
        assert!(is_own(&device, "vitals/v1/monitor-1/num/heart-rate"));
        assert!(is_own(&device, "vitals/v1/monitor-1/status"));
        for foreign in [
            "vitals/v1/monitor-10/num/heart-rate",
            "vitals/v1/monitor-1",
            "vitals/v1/monitor-1/",
            "vitals/v1/monitor-/num",
            "vitals/v2/monitor-1/num/heart-rate",
            "/vitals/v1/monitor-1/num",
            "$SYS/x",
            "",
        ] {
            assert!(!is_own(&device, foreign), "{foreign}");
        }
    }

    #[test]
    fn the_topic_names_the_device() {
        assert_eq!(device_of("vitals/v1/a:b/num/x"), Some(DeviceId::new("a:b").unwrap()));
        assert_eq!(device_of("vitals/v1/a b/num/x"), None);
        assert_eq!(device_of("vitals/v1//num/x"), None);
        assert_eq!(device_of("vitals/v1/a/"), None);
        assert_eq!(device_of("other"), None);
    }
}
