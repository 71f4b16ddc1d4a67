//! How often one address may try something: a token bucket for each, bounded. Pure; `now` is given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses remembered at once, some 50 bytes each: a home network has fewer. Beyond it the one that may soonest again is forgotten.
const ADDRESSES_MAX: usize = 512;

/// So many at once, and then one in so long.
#[derive(Debug)]
pub(super) struct Pace {
    burst: u32,
    every: Duration,
    /// When the next try would be due, were there no burst.
    due: HashMap<IpAddr, Instant>,
}

/// A subscriber of IPv6 has a /64, so that is what counts as one address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Pace {
    pub(super) fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, due: HashMap::new() }
    }

    /// Takes a try.
    ///
    /// # Errors
    /// The time until the next one.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let address = network(address);
        let due = self.due.get(&address).copied().unwrap_or(now).max(now);
        let allowed = now + self.every * self.burst.saturating_sub(1);
        if let Some(left) = due.checked_duration_since(allowed)
            && !left.is_zero()
        {
            return Err(left);
        }
        if !self.due.contains_key(&address) {
            self.make_room(now);
        }
        self.due.insert(address, due + self.every);
        Ok(())
    }

    /// Forgets what an address tried.
    pub(super) fn forgive(&mut self, address: IpAddr) {
        self.due.remove(&network(address));
    }

    fn make_room(&mut self, now: Instant) {
        if self.due.len() < ADDRESSES_MAX {
            return;
        }
        self.due.retain(|_, due| *due > now);
        if self.due.len() >= ADDRESSES_MAX
            && let Some(soonest) = self.due.iter().min_by_key(|(_, due)| **due).map(|(address, _)| *address)
        {
            self.due.remove(&soonest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const EVERY: Duration = Duration::from_secs(20);

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let start = caregate_host::clock::monotonic();
        let mut pace = Pace::new(5, EVERY);
        for _ in 0..5 {
            pace.take(HERE, start).unwrap();
        }
        assert_eq!(pace.take(HERE, start), Err(EVERY));
        assert_eq!(pace.take(HERE, start + EVERY / 4), Err(EVERY * 3 / 4));
        pace.take("10.0.0.1".parse().unwrap(), start).unwrap();
        pace.take(HERE, start + EVERY).unwrap();
        assert_eq!(pace.take(HERE, start + EVERY), Err(EVERY));
        pace.forgive(HERE);
        pace.take(HERE, start + EVERY).unwrap();
    }

    #[test]
    fn a_subnet_is_one_address() {
        let start = caregate_host::clock::monotonic();
        let mut pace = Pace::new(1, EVERY);
        pace.take("fd00::1".parse().unwrap(), start).unwrap();
        assert!(pace.take("fd00::2".parse().unwrap(), start).is_err());
        assert!(pace.take("fd00:0:0:1::2".parse().unwrap(), start).is_ok());
        pace.take("::ffff:10.0.0.1".parse().unwrap(), start).unwrap();
        assert!(pace.take("10.0.0.1".parse().unwrap(), start).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = caregate_host::clock::monotonic();
        let mut pace = Pace::new(1, EVERY);
        for n in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            pace.take(IpAddr::from(n.to_be_bytes()), start).unwrap();
            assert!(pace.due.len() <= ADDRESSES_MAX);
        }
    }
}
