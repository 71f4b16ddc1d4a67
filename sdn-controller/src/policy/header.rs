//! Number and time of a block's header, for those who look; nobody relies on them.

use ledger_client::verify::rlp::{Items, RlpError};

/// Fields before the number: parent, ommers, beneficiary, three roots, bloom, difficulty.
const BEFORE_NUMBER: usize = 8;
/// Fields between number and time: gas limit and gas used.
const BEFORE_TIME: usize = 2;

/// Block number, and Unix time in seconds.
pub(super) fn number_and_time(header: &[u8]) -> Result<(u64, u64), RlpError> {
    let mut fields = Items::of_list(header)?;
    for _ in 0..BEFORE_NUMBER {
        fields.item()?;
    }
    let number = fields.number()?;
    for _ in 0..BEFORE_TIME {
        fields.item()?;
    }
    Ok((number, fields.number()?))
}

#[cfg(test)]
mod tests {
    use ledger_client::fixture::Site;

    use super::*;

    #[test]
    fn of_a_header_and_of_none() {
        let mut site = Site::new(1);
        site.number = 6;
        let header = site.bundle(1_790_000_000).header;
        assert_eq!(number_and_time(&header), Ok((7, 1_790_000_000)));
        for end in [0, 1, 40, 500] {
            assert!(number_and_time(&header[..end]).is_err(), "{end}");
        }
    }
}
