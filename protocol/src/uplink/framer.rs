//! Frames out of a stream, and acknowledgements of positions.

use super::{ACK_RANGES_MAX, FRAME_BYTES_MAX, Frame, FrameError};

/// Joins sorted positions to inclusive ranges, at most [`ACK_RANGES_MAX`] a frame.
#[must_use]
pub fn ack_frames(positions: &mut Vec<u64>) -> Vec<Frame> {
    positions.sort_unstable();
    positions.dedup();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for position in positions.drain(..) {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(position) => *last = position,
            _ => ranges.push((position, position)),
        }
    }
    ranges.chunks(ACK_RANGES_MAX).map(|part| Frame::Ack { ranges: part.to_vec() }).collect()
}

/// Cuts a byte stream into frames; holds at most one frame and what was pushed last.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    at: usize,
}

impl Framer {
    /// An empty framer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]; the stream can't be used any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let left = self.buffer.get(self.at..).unwrap_or_default();
        let Some((head, rest)) = left.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(FrameError::Length(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(body)?;
        self.at += 4 + length;
        Ok(Some(frame))
    }
}
