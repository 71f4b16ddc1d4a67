//! The shell around each daemon: configuration, identities, metrics, logs, shutdown.
