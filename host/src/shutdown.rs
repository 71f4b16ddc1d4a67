//! Stops a daemon on SIGTERM or SIGINT: the first signal asks everything to drain, the second ends the process at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that SIGINT ended: 128 + 2.
const EXIT_INTERRUPTED: i32 = 130;

/// A token that the first SIGTERM or SIGINT cancels. A second one exits with status 130 without draining.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// When the signal handlers can't be installed.
pub fn token() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!("stopping; a second signal exits at once");
        cancelled.cancel();
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::warn!("second signal: exiting without draining");
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use crate::child;

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        if child::is_child() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let token = super::token().unwrap();
                println!("ready");
                token.cancelled().await;
                println!("stopping");
                std::future::pending::<()>().await;
            });
        }
        for (first, second) in [("-TERM", "-INT"), ("-INT", "-TERM"), ("-TERM", "-TERM")] {
            let mut child = child::Child::start("shutdown::tests::the_first_signal_asks_and_the_second_ends");
            child.wait_for("ready");
            child.signal(first);
            child.wait_for("stopping");
            child.signal(second);
            assert_eq!(child.status().code(), Some(super::EXIT_INTERRUPTED));
        }
    }
}
