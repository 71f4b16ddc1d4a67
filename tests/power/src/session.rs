//! A client of the gateway's whose session outlives its connections and has ever more subscriptions; before each of them it leaves a
//! retained message with the subscription's number.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

use crate::site::{PATIENCE, SECRET, metric};

pub(crate) const DEVICE: &str = "belt-1";
pub(crate) const CLIENT_ID: &str = "wall";
/// What is retained, before its number.
const RETAINED: &str = "subscriptions-before-";
/// Of that number.
const DIGITS: usize = 8;
/// The gateway gives a session 64.
const SUBSCRIPTIONS_MAX: u64 = 60;
/// As often as it is looked whether the gateway has written the file.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const WRITTEN: &str = "caregate_mqtt_kept_total{outcome=\"written\"}";

/// A subscription by its number.
pub(crate) fn filter(number: u64) -> String {
    format!("vitals/v1/{DEVICE}/num/kept-{number}")
}

/// The number that was retained last, as the opened file has it.
pub(crate) fn retained_in(bytes: &[u8]) -> Option<u64> {
    let found = bytes.windows(RETAINED.len()).rposition(|window| window == RETAINED.as_bytes())?;
    let digits = bytes.get(found + RETAINED.len()..)?.get(..DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Subscribes again and again. `kept`: how many subscriptions are in the file for sure, each with its retained message.
///
/// A write that is counted after a subscription was acknowledged may have begun before it; the next one did not. So each counts as kept
/// with the write that follows the next one.
pub(crate) async fn grow(gateway: SocketAddr, admin: SocketAddr, kept: Arc<AtomicU64>) {
    for number in 0..SUBSCRIPTIONS_MAX {
        if subscribe(gateway, number).await.is_none() {
            return;
        }
        let Some(before) = written(admin, 0.0).await else { return };
        if written(admin, before + 1.0).await.is_none() {
            return;
        }
        kept.store(number, Ordering::SeqCst);
    }
    std::future::pending().await
}

/// How often the file was written, once it is so many times. A busy daemon may leave a question unanswered; then it is asked again.
async fn written(admin: SocketAddr, at_least: f64) -> Option<f64> {
    let looking = async {
        loop {
            if let Some(times) = metric(admin, WRITTEN).filter(|times| *times >= at_least) {
                return times;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.ok()
}

/// One connection: the retained message, the subscription, and the end.
async fn subscribe(gateway: SocketAddr, number: u64) -> Option<()> {
    let mut options = MqttOptions::new(CLIENT_ID, gateway.ip().to_string(), gateway.port());
    options.set_credentials(DEVICE, SECRET).set_keep_alive(Duration::from_secs(30)).set_clean_session(false);
    let (client, mut events) = AsyncClient::new(options, 8);
    // Between clients in the home: under `vitals/` it would be no reading, and lie in the quarantine.
    let (topic, payload) = (format!("local/v1/{DEVICE}/count"), format!("{RETAINED}{number:0DIGITS$}"));
    client.publish(topic, QoS::AtLeastOnce, true, payload).await.ok()?;
    comes(&mut events, |packet| matches!(packet, Packet::PubAck(_))).await?;
    client.subscribe(filter(number), QoS::AtLeastOnce).await.ok()?;
    comes(&mut events, |packet| matches!(packet, Packet::SubAck(_))).await?;
    client.disconnect().await.ok()?;
    tokio::time::timeout(PATIENCE, async { while events.poll().await.is_ok() {} }).await.ok()
}

async fn comes(events: &mut EventLoop, is_it: impl Fn(&Packet) -> bool) -> Option<()> {
    let coming = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(packet)) if is_it(&packet) => return Some(()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(PATIENCE, coming).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_that_was_retained_is_found_among_other_bytes() {
        let bytes = format!("\x01{RETAINED}00000003\x02{RETAINED}00000012\x03");
        assert_eq!(retained_in(bytes.as_bytes()), Some(12));
        assert_eq!(retained_in(b"subscriptions-before-x"), None);
        assert_eq!(filter(3), "vitals/v1/belt-1/num/kept-3");
    }
}
