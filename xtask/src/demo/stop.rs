//! Ctrl-C and SIGTERM: noted, and looked at between steps, so that everything is undone in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on signals are noted instead of ending the process.
pub(super) fn watch() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).context("SIGINT")?,
            signal(SignalKind::terminate()).context("SIGTERM")?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
                REQUESTED.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

/// Whether the demo is to stop.
pub(super) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
