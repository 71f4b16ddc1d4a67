//! A byte stream cut into messages by the length in each header.

use thiserror::Error;

use super::{HEADER_BYTES, Header, MESSAGE_BYTES_MAX};

/// A header's length is shorter than a header: where the next message begins is lost, and so is the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("header of type {} says {} bytes, a header alone has {HEADER_BYTES}", .header.message_type, .header.length)]
pub struct FrameError {
    /// As received.
    pub header: Header,
}

/// Takes bytes as they come and gives whole messages, header included.
///
/// It never holds more than one longest message: [`accept`](Self::accept) takes what fits, the caller takes frames out and
/// offers the rest again.
#[derive(Debug, Default)]
pub struct Framer {
    /// At most [`MESSAGE_BYTES_MAX`].
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were given out.
    taken: usize,
}

impl Framer {
    /// With nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes as many of `bytes` as there is room for and says how many.
    ///
    /// Less than all of them only while a whole frame or an error waits in [`next_frame`](Self::next_frame).
    #[must_use]
    pub fn accept(&mut self, bytes: &[u8]) -> usize {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let count = bytes.len().min(MESSAGE_BYTES_MAX - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        count
    }

    /// The next whole message, or none until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`], the same again at each call.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Ok(header) = Header::decode(waiting) else { return Ok(None) };
        let length = usize::from(header.length);
        if length < HEADER_BYTES {
            return Err(FrameError { header });
        }
        let frame = waiting.get(..length);
        if frame.is_some() {
            self.taken += length;
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Message;
    use super::*;

    fn drain(framer: &mut Framer, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Vec::new();
        loop {
            let count = framer.accept(bytes);
            bytes = &bytes[count..];
            while let Some(frame) = framer.next_frame()? {
                frames.push(frame.to_vec());
            }
            if bytes.is_empty() {
                return Ok(frames);
            }
            assert!(count > 0, "no progress");
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            echoes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20),
            cut in 1usize..500,
        ) {
            let frames: Vec<Vec<u8>> =
                echoes.into_iter().map(|data| Message::EchoRequest(data).encode(7).unwrap()).collect();
            let stream = frames.concat();
            let mut framer = Framer::new();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                seen.extend(drain(&mut framer, piece).unwrap());
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn any_bytes_stay_within_the_bound(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let mut framer = Framer::new();
            // Either it frames them or it says so; nothing else may happen.
            let ended = drain(&mut framer, &bytes).is_err();
            prop_assert!(framer.buffer.len() <= MESSAGE_BYTES_MAX);
            prop_assert!(ended == framer.next_frame().is_err());
        }
    }

    #[test]
    fn longest_messages_pass_back_to_back() {
        let longest = Message::EchoRequest(vec![1; MESSAGE_BYTES_MAX - HEADER_BYTES]).encode(1).unwrap();
        let stream = [longest.clone(), longest.clone(), longest].concat();
        let frames = drain(&mut Framer::new(), &stream).unwrap();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [MESSAGE_BYTES_MAX; 3]);
    }

    #[test]
    fn a_length_below_a_header_is_an_error_that_stays() {
        let mut framer = Framer::new();
        assert_eq!(framer.accept(&[4, 0, 0, 7, 0, 0, 0, 1, 4, 0, 0, 8]), 12);
        let error = framer.next_frame().unwrap_err();
        assert_eq!(error.header.length, 7);
        assert!(framer.next_frame().is_err());
    }
}
