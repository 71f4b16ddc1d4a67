//! A cursor on our queue at the core, and how far all of them have come.

use caregate_protocol::id::RecipientId;
use caregate_protocol::uplink::{self as wire, Frame, Framer, Timing};
use quinn::{Connection, RecvStream};

use super::{LinkError, READ_BYTES, transport};

/// The next of a subscription; never where there is none any more.
pub(super) async fn next_of(subscription: &mut Option<Subscription>) -> Result<Option<Came>, LinkError> {
    match subscription {
        Some(subscription) => subscription.next_of().await,
        None => std::future::pending().await,
    }
}

/// How much of the queue has been delivered: all below `whole_below`, and, while history catches up, parts of what came after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) whole_below: u64,
    present: Option<Present>,
    caught_up: bool,
}

/// From where the connection came up: below which number all of each timing has been delivered.
#[derive(Debug, PartialEq, Eq)]
struct Present {
    start: u64,
    live: u64,
    backlog: u64,
}

impl Progress {
    pub(super) fn live_from(&mut self, next: u64) {
        self.present = Some(Present { start: next, live: next, backlog: next });
        self.caught_up = false;
    }

    pub(super) fn passed(&mut self, timing: Timing, below: u64) {
        if let Some(present) = &mut self.present {
            match timing {
                Timing::Live => present.live = below,
                Timing::Backlog => present.backlog = below,
            }
        }
        self.advance();
    }

    pub(super) fn caught_up(&mut self) {
        self.caught_up = true;
        if let Some(present) = &self.present {
            self.whole_below = self.whole_below.max(present.start);
        }
        self.advance();
    }

    fn advance(&mut self) {
        if let (true, Some(present)) = (self.caught_up, &self.present) {
            self.whole_below = self.whole_below.max(present.live.min(present.backlog));
        }
    }

    /// What was delivered past a history that is not whole, or past a gap of the other timing, comes again; the opener knows it.
    pub(super) fn interrupted(&mut self) {
        self.present = None;
        self.caught_up = false;
    }
}

/// Frames of one receiving stream.
pub(super) struct Frames {
    stream: RecvStream,
    framer: Framer,
}

impl Frames {
    pub(super) fn of(stream: RecvStream) -> Self {
        Self { stream, framer: Framer::new() }
    }

    /// The next frame, or `None` at the end. Cancel-safe: what was read stays in the framer.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES, true).await.map_err(transport)? {
                Some(chunk) => self.framer.push(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }
}

/// What a subscription brings.
pub(super) enum Came {
    /// A record and its number.
    Record(u64, Vec<u8>),
    /// All below this number was delivered.
    Passed(u64),
}

pub(super) struct Subscription {
    frames: Frames,
    pub(super) next: u64,
    order: Order,
}

/// The order of a subscription's numbers. What is admitted can be counted on from: it is below `u64::MAX`.
#[derive(Debug, Default)]
struct Order {
    last: Option<u64>,
}

impl Order {
    fn admit(&mut self, number: u64) -> Result<u64, LinkError> {
        if number == u64::MAX || self.last.is_some_and(|last| number <= last) {
            return Err(LinkError::Number { number, before: self.last });
        }
        self.last = Some(number);
        Ok(number)
    }

    /// All below is done: as if the number before it had come.
    fn pass(&mut self, below: u64) -> Result<u64, LinkError> {
        let number = below.checked_sub(1).ok_or(LinkError::Unexpected)?;
        self.admit(number).map(|number| number + 1)
    }
}

impl Subscription {
    pub(super) async fn open(
        connection: &Connection,
        recipient: RecipientId,
        (from, until): (u64, u64),
        of: Option<Timing>,
    ) -> Result<Self, LinkError> {
        let (mut out, stream) = connection.open_bi().await.map_err(transport)?;
        let frame = Frame::Subscribe { version: wire::VERSION, recipient, from, until, of };
        out.write_all(&frame.encode()).await.map_err(transport)?;
        out.finish().map_err(transport)?;
        let frames = Frames::of(stream);
        let mut subscription = Self { frames, next: 0, order: Order::default() };
        match subscription.frames.next().await? {
            Some(Frame::Subscribed { version: wire::VERSION, next }) => subscription.next = next,
            _ => return Err(LinkError::Unexpected),
        }
        Ok(subscription)
    }

    /// What comes next, or `None` at the end. Cancel-safe: what was read stays in the framer.
    pub(super) async fn next_of(&mut self) -> Result<Option<Came>, LinkError> {
        match self.frames.next().await? {
            Some(Frame::Delivery { number, record }) => {
                Ok(Some(Came::Record(self.order.admit(number)?, record)))
            }
            Some(Frame::Passed { below }) => Ok(Some(Came::Passed(self.order.pass(below)?))),
            None => Ok(None),
            Some(_) => Err(LinkError::Unexpected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_numbers_badly_is_refused() {
        let mut order = Order::default();
        for number in [0, 1, 5, u64::MAX - 1] {
            assert_eq!(order.admit(number).unwrap(), number);
        }
        for number in [u64::MAX, u64::MAX - 1, 5, 0] {
            let error = order.admit(number).unwrap_err();
            assert_eq!(error.reason(), "number", "{error}");
        }
        assert!(Order::default().admit(u64::MAX).is_err());
        let mut order = Order::default();
        assert_eq!(order.pass(5).unwrap(), 5);
        assert!(order.admit(4).is_err() && order.pass(5).is_err() && order.pass(0).is_err());
        assert_eq!((order.admit(5).unwrap(), order.pass(7).unwrap()), (5, 7));
        let mut progress = Progress::default();
        progress.live_from(0);
        progress.passed(Timing::Live, u64::MAX);
        progress.passed(Timing::Backlog, u64::MAX);
        progress.caught_up();
        assert_eq!(progress.whole_below, u64::MAX);
    }

    #[test]
    fn what_was_delivered_whole_is_not_asked_for_again() {
        let mut progress = Progress::default();
        progress.live_from(10);
        progress.passed(Timing::Live, 13);
        progress.passed(Timing::Backlog, 12);
        assert_eq!(progress.whole_below, 0, "history is not whole yet");
        progress.caught_up();
        assert_eq!(progress.whole_below, 12, "backlog may be between");
        progress.passed(Timing::Backlog, 20);
        assert_eq!(progress.whole_below, 13);
        progress.passed(Timing::Live, 21);
        progress.interrupted();
        assert_eq!(progress.whole_below, 20);
    }

    #[test]
    fn an_interrupted_history_resumes_where_it_stopped() {
        let mut progress = Progress::default();
        progress.live_from(10);
        progress.passed(Timing::Live, 11);
        progress.passed(Timing::Backlog, 11);
        progress.whole_below = 4;
        progress.interrupted();
        assert_eq!(progress.whole_below, 4);
    }
}
