//! Consent on the ledger: what a gateway verifies, and what a wallet signs.
