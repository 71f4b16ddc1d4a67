//! The domain's own journal: who logged in, whose readings somebody looked at, what was received, and what opens the commitments of
//! each emergency. It is an audit log as gateways and the core keep one, in the same format and file.

pub use caregate_host::journal::{Journal, JournalError};
pub use caregate_protocol::audit::{AccessBasis, Entry, Part, What};
