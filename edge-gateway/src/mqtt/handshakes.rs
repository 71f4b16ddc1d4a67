//! Places for connections that have not said who they are. Where all are taken, the one that has waited longest makes room: strangers who
//! hold sockets open can't keep a sensor out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::limits::HANDSHAKES_MAX;

/// All of them, over all listeners.
pub(super) struct Handshakes {
    waiting: Mutex<Waiting>,
    /// With those that were told to go and have not gone yet.
    sockets: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Oldest first.
    places: BTreeMap<u64, CancellationToken>,
}

impl Handshakes {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), sockets: Arc::new(Semaphore::new(2 * HANDSHAKES_MAX)) })
    }

    /// A place, and whether another's was taken for it; none where as many as may wait are still to go.
    pub(super) fn enter(self: &Arc<Self>) -> Option<(Place, bool)> {
        let socket = Arc::clone(&self.sockets).try_acquire_owned().ok()?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if waiting.places.len() < HANDSHAKES_MAX { None } else { waiting.places.pop_first() };
        let (number, gone) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.places.insert(number, gone.clone());
        drop(waiting);
        let is_taken = oldest.is_some();
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        Some((Place { of: Arc::clone(self), number, gone, _socket: socket }, is_taken))
    }
}

/// One place; free again when dropped.
pub(super) struct Place {
    of: Arc<Handshakes>,
    number: u64,
    gone: CancellationToken,
    _socket: OwnedSemaphorePermit,
}

impl Place {
    /// When another has it.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.waiting.lock().unwrap_or_else(PoisonError::into_inner).places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_sockets_are_bounded() {
        let all = Handshakes::new();
        let mut places: Vec<Place> = (0..HANDSHAKES_MAX).map(|_| all.enter().unwrap().0).collect();
        drop(places.remove(1));
        assert!(!all.enter().unwrap().1, "one had left");
        let (place, is_taken) = all.enter().unwrap();
        places.push(place);
        assert!(!is_taken && !places[0].gone.is_cancelled());
        let (place, is_taken) = all.enter().unwrap();
        places.push(place);
        assert!(is_taken && places[0].gone.is_cancelled() && !places[1].gone.is_cancelled());
        while let Some((place, _)) = all.enter() {
            places.push(place);
        }
        assert_eq!(places.len(), 2 * HANDSHAKES_MAX, "those that were told to go still have their sockets");
        places.remove(0);
        assert!(all.enter().is_some());
    }
}
