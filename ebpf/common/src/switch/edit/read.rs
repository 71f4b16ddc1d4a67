//! The headers as a frame, for the parser.

use super::{Headers, number};
use crate::frame::Frame;

impl Frame for Headers {
    type Rest<'a> = From<'a>;

    #[inline(always)]
    fn rest(&self, at: usize) -> From<'_> {
        From { headers: self, at: number(at) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        self.rest(0).u8(at)
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        self.rest(0).u16(at)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> Option<u32> {
        self.rest(0).u32(at)
    }
}

/// The headers from a place on.
#[derive(Debug, Clone, Copy)]
pub struct From<'h> {
    headers: &'h Headers,
    at: u32,
}

impl From<'_> {
    #[inline(always)]
    fn has(&self, at: usize, bytes: u32) -> bool {
        self.at + number(at) + bytes <= self.headers.len
    }

    #[inline(always)]
    fn place(&self, at: usize) -> u32 {
        self.at + number(at)
    }
}

impl Frame for From<'_> {
    type Rest<'a>
        = From<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn rest(&self, at: usize) -> From<'_> {
        From { headers: self.headers, at: self.at + number(at) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.headers.len.saturating_sub(self.at) as usize
    }

    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        self.has(at, 1).then(|| self.headers.byte(self.place(at)))
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "two bytes")]
    fn u16(&self, at: usize) -> Option<u16> {
        self.has(at, 2).then(|| self.headers.u16_at(self.place(at)) as u16)
    }

    #[inline(always)]
    fn u32(&self, at: usize) -> Option<u32> {
        self.has(at, 4).then(|| self.headers.u32_at(self.place(at)))
    }
}
