//! How often a password may be tried: per user and address, and per address. Pure; `now` is given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ring::digest;

/// Failed attempts are forgotten after so long.
const WINDOW: Duration = Duration::from_mins(5);
/// Failures of one user from one address in a window: a person who mistypes; a guesser gets 2,880 a day.
pub const USER_MAX: u32 = 10;
/// Failures of all users from one address in a window: a hospital behind one address mistypes less.
pub const ADDRESS_MAX: u32 = 100;
/// Entries kept, some 100 bytes each; beyond it the oldest is forgotten.
const ENTRIES_MAX: usize = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    User(IpAddr, [u8; 32]),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    failures: u32,
}

/// What failed recently.
#[derive(Debug, Default)]
pub struct Attempts {
    by_key: HashMap<Key, Count>,
}

/// A subscriber of IPv6 has a /64, so that is what counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn keys(address: IpAddr, user: &str) -> [(Key, u32); 2] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, user.as_bytes()).as_ref());
    let address = network(address);
    [(Key::User(address, hash), USER_MAX), (Key::Address(address), ADDRESS_MAX)]
}

impl Attempts {
    /// Counts an attempt as failed until [`Attempts::succeed`] says otherwise, so that attempts at the same moment are
    /// counted too.
    ///
    /// # Errors
    /// The time until another attempt is allowed.
    pub fn begin(&mut self, address: IpAddr, user: &str, now: Instant) -> Result<(), Duration> {
        let keys = keys(address, user);
        for (key, max) in keys {
            if let Some(count) = self.by_key.get(&key)
                && count.failures >= max
                && let Some(left) = (count.since + WINDOW).checked_duration_since(now)
                && !left.is_zero()
            {
                return Err(left);
            }
        }
        for (key, _) in keys {
            if !self.by_key.contains_key(&key) {
                self.make_room(now);
            }
            let count = self.by_key.entry(key).or_insert(Count { since: now, failures: 0 });
            if now.saturating_duration_since(count.since) >= WINDOW {
                *count = Count { since: now, failures: 0 };
            }
            count.failures += 1;
        }
        Ok(())
    }

    /// The attempt was good: the user's failures are forgotten, and the address keeps only those of others.
    pub fn succeed(&mut self, address: IpAddr, user: &str) {
        let [(of_user, _), (of_address, _)] = keys(address, user);
        let forgiven = self.by_key.remove(&of_user).map_or(1, |count| count.failures);
        if let Some(count) = self.by_key.get_mut(&of_address) {
            count.failures = count.failures.saturating_sub(forgiven);
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.by_key.len() < ENTRIES_MAX {
            return;
        }
        self.by_key.retain(|_, count| now.saturating_duration_since(count.since) < WINDOW);
        if self.by_key.len() >= ENTRIES_MAX
            && let Some(oldest) = self.by_key.iter().min_by_key(|(_, count)| count.since).map(|(key, _)| *key)
        {
            self.by_key.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_user_who_fails_too_often_waits_for_the_window() {
        let start = caregate_host::clock::monotonic();
        let mut attempts = Attempts::default();
        for _ in 0..USER_MAX {
            attempts.begin(HERE, "nurse", start).unwrap();
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(attempts.begin(HERE, "nurse", later), Err(WINDOW - Duration::from_secs(60)));
        attempts.begin(HERE, "doctor", later).unwrap();
        attempts.begin("::2".parse().unwrap(), "nurse", later).unwrap();
        attempts.begin(HERE, "nurse", start + WINDOW).unwrap();
    }

    #[test]
    fn success_forgives() {
        let start = caregate_host::clock::monotonic();
        let mut attempts = Attempts::default();
        for _ in 0..20 * ADDRESS_MAX {
            attempts.begin(HERE, "nurse", start).unwrap();
            attempts.succeed(HERE, "nurse");
        }
    }

    #[test]
    fn an_address_that_tries_many_names_waits_too() {
        let start = caregate_host::clock::monotonic();
        let mut attempts = Attempts::default();
        let address = |n: u32| IpAddr::from(Ipv6Addr::from_bits(u128::from(n)));
        for n in 0..ADDRESS_MAX {
            attempts.begin(address(n), &n.to_string(), start).unwrap();
        }
        assert_eq!(attempts.begin(address(7), "another", start), Err(WINDOW));
    }

    #[test]
    fn entries_are_bounded() {
        let start = caregate_host::clock::monotonic();
        let mut attempts = Attempts::default();
        for n in 0..u32::try_from(ENTRIES_MAX).unwrap() {
            attempts.begin(IpAddr::from(n.to_be_bytes()), "nurse", start).unwrap();
        }
        assert!(attempts.by_key.len() <= ENTRIES_MAX);
    }
}
