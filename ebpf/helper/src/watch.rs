//! Waits for descriptors that are no sockets of tokio's.

#![expect(unsafe_code, reason = "tokio asks for the promise that the descriptor stays open")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Says when `descriptor` can be read.
///
/// # Errors
/// The operating system's.
pub(crate) fn readiness<T: AsFd + AsRawFd + 'static>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` says that the descriptor is open for as long as the value lives, and the `AsyncFd` owns the value.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
