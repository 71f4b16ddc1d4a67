//! An independent reader of the feed's WebSocket (`docs/feed-api.md`): it shares no code with the feed or its page.

pub mod login;
pub mod reader;

pub use login::{Address, LoginError, login};
pub use reader::{Credentials, FeedError, follow};
