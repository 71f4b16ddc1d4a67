//! Names that devices give themselves: bounded, and without what could mislead a person or a terminal.

/// Longest host name: a DNS label (RFC 1035 §2.3.4).
pub(super) const NAME_BYTES_MAX: usize = 63;
/// Longest text about a device: a vendor class or an LLDP system description says enough in a line.
pub(super) const ABOUT_BYTES_MAX: usize = 96;

/// Text of at most `max` bytes; what is neither a letter, a digit, a space nor usual punctuation becomes `_`. None where nothing
/// is left.
pub(super) fn printable(bytes: &[u8], max: usize) -> Option<String> {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(2 * max)).unwrap_or_default());
    let mut kept = String::new();
    for c in text.trim_matches(|c: char| c.is_whitespace() || c == '\0').chars() {
        let plain = c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ';
        let c = if plain { c } else { '_' };
        if kept.len() + c.len_utf8() > max {
            break;
        }
        kept.push(c);
    }
    (!kept.is_empty()).then_some(kept)
}

/// The first label of a host name.
pub(super) fn host_name(bytes: &[u8]) -> Option<String> {
    let first = bytes.split(|byte| *byte == b'.').next().unwrap_or_default();
    printable(first, NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_taken_out() {
        assert_eq!(host_name(b"bed-monitor.home.arpa").as_deref(), Some("bed-monitor"));
        assert_eq!(host_name("Käthes Waage".as_bytes()).as_deref(), Some("Käthes Waage"));
        assert_eq!(host_name("a\u{202e}b\u{1b}[2J".as_bytes()).as_deref(), Some("a_b_[2J"));
        assert_eq!((host_name(b""), host_name(b" \0")), (None, None));
        assert_eq!(printable(&[b'x'; 500], 63).unwrap().len(), 63);
        assert!(printable("ä".repeat(63).as_bytes(), 63).unwrap().len() <= 63);
    }
}
