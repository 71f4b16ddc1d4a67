//! Where the chain's validators hand on: the first header that names others, of which a gateway needs each from those that it knows to
//! those that seal now. Between two headers that name different ones, the change is found by halving.

use caregate_protocol::policy::HANDOVERS_MAX;

use crate::bundle::{header_bytes, named};
use crate::client::Block;
use crate::error::ChainError;
use crate::follow::Follower;

/// Who sealed, as a header names them.
type Validators = Vec<[u8; 20]>;

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    /// Up to this block, where these seal.
    known: Option<(u64, Validators)>,
    /// Number and bytes of each first header; the newest [`HANDOVERS_MAX`].
    headers: Vec<(u64, Vec<u8>)>,
}

/// Two blocks: the same validators seal the lower one as those that are known, others the higher one. Asks some twenty headers for a
/// million blocks.
#[derive(Debug, Clone, Copy)]
struct Between {
    low: u64,
    high: u64,
}

impl Between {
    /// Which block to ask next; none where `high` is the first that others seal.
    fn next(self) -> Option<u64> {
        (self.high - self.low > 1).then(|| self.low + (self.high - self.low) / 2)
    }

    fn told(&mut self, at: u64, is_same: bool) {
        if is_same {
            self.low = at;
        } else {
            self.high = at;
        }
    }
}

impl Follower {
    /// Looks for changes up to `latest`. On a chain whose headers name nobody there are none.
    pub(crate) async fn follow_validators(&self, latest: &Block) -> Result<(), ChainError> {
        let Some(now) = named(&latest.header) else { return Ok(()) };
        let known = self.state().handovers.known.clone();
        let (mut number, mut sealing) = match known {
            Some(known) => known,
            None => {
                let first = self.chain().block(Some(self.chain().config.deployed_at)).await?;
                (first.head.number, named(&first.header).unwrap_or_default())
            }
        };
        while sealing != now && number < latest.head.number {
            let mut between = Between { low: number, high: latest.head.number };
            while let Some(at) = between.next() {
                let asked = self.chain().block(Some(at)).await?;
                between.told(at, named(&asked.header).as_ref() == Some(&sealing));
            }
            let changed = between.high;
            let block = self.chain().block(Some(changed)).await?;
            let header = header_bytes(&block)?;
            (number, sealing) = (changed, named(&block.header).unwrap_or_default());
            let mut state = self.state();
            let headers = &mut state.handovers.headers;
            headers.push((changed, header));
            let over = headers.len().saturating_sub(HANDOVERS_MAX);
            headers.drain(..over);
            state.handovers.known = Some((number, sealing.clone()));
        }
        self.state().handovers.known = Some((latest.head.number, now));
        Ok(())
    }

    /// How many seal, as the newest header that was looked at names them; none where headers name nobody, or none was seen.
    #[must_use]
    pub fn sealers(&self) -> Option<usize> {
        self.state().handovers.known.as_ref().map(|(_, sealing)| sealing.len())
    }

    /// The headers with which validators handed on, up to a block.
    pub(crate) fn handovers(&self, up_to: u64) -> Vec<Vec<u8>> {
        let state = self.state();
        let headers = state.handovers.headers.iter().filter(|(number, _)| *number <= up_to);
        headers.map(|(_, bytes)| bytes.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_found_wherever_it_is() {
        for last in [1, 2, 3, 17, 1000] {
            for changed in 1..=last.min(64) {
                let (mut between, mut asked) = (Between { low: 0, high: last }, 0);
                while let Some(at) = between.next() {
                    between.told(at, at < changed);
                    asked += 1;
                }
                assert_eq!(between.high, changed, "of {last}");
                assert!(asked <= 10, "{asked}");
            }
        }
    }
}
