//! A hospital's end: opens what consent allows and shows it, as a live page and as FHIR.
//!
//! ```text
//! core ═QUIC═▶ link ─events─▶ opener thread ─▶ ring ◀─cursor─ one stream per page (WebSocket)
//!                             opener, chain          ◀─scan─── FHIR searches
//! ```
//! The ledger is followed beside it, for what access rests on; it decides nothing here, since keys do.
//!
//! What was opened lives in memory only, in a ring that is bounded by bytes; the core holds the durable ciphertext. A reader
//! is a cursor on the ring, so a slow one costs nothing and resumes by number.

pub mod access;
pub mod attempts;
pub mod bedside;
mod break_glass;
pub mod chain;
pub mod command;
pub mod config;
pub mod contact;
pub mod daemon;
pub mod emergency;
pub mod erasures;
pub mod export;
pub mod feed;
pub mod fhir;
pub mod history;
pub mod journal;
pub mod ledger;
pub mod link;
pub mod login;
pub mod look;
pub mod message;
pub mod metrics;
pub mod offer;
pub mod opener;
pub mod page;
pub mod password;
pub mod receipts;
pub mod record;
pub mod ring;
pub mod search;
pub mod server;
pub mod session;
pub mod stream;
pub mod trail;
