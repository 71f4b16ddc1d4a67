//! Vendors by address prefix, from a file of the system: the IEEE's registry is five megabytes, and the gateway embeds none of it.
//!
//! Understood are the IEEE's `oui.txt` and its CSV files (Debian's `ieee-data`), nmap's `nmap-mac-prefixes` and Wireshark's `manuf`.
//! Lines that are none of these are passed over and counted; a registry has many that say addresses.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use caregate_protocol::policy::Mac;

use super::text;

/// Largest file: three times the registry of today.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// Longest line looked at; an organisation's name and address take a tenth.
const LINE_BYTES_MAX: u64 = 4096;
/// Prefixes kept, 12 bytes each: the registry has 57,000 with its small blocks.
pub const PREFIXES_MAX: usize = 100_000;
/// Longest vendor name kept.
const NAME_BYTES_MAX: usize = 48;

/// Bits of a prefix: an MA-S, an MA-M, an MA-L block (IEEE Registration Authority).
const LENGTHS: [u8; 3] = [36, 28, 24];

/// What an address says of its vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor<'t> {
    /// The block is this organisation's.
    Named(&'t str),
    /// The sender chose the address.
    Local,
    /// The table has no such block.
    Unknown,
}

/// The table.
#[derive(Debug, Default)]
pub struct Vendors {
    /// Prefix (left-aligned in 48 bits, with its length below it) and where its name is, sorted.
    prefixes: Vec<(u64, u32)>,
    /// Each name once.
    names: Vec<Box<str>>,
}

fn key(bits: u64, length: u8) -> u64 {
    let mask = !0 << (48 - u32::from(length));
    (bits & mask) << 8 | u64::from(length)
}

impl Vendors {
    /// Reads a file.
    ///
    /// # Errors
    /// The operating system's, or [`io::ErrorKind::InvalidData`] for a file past its bound or without a single prefix.
    pub fn load(path: &Path) -> io::Result<Self> {
        Self::read(BufReader::new(File::open(path)?.take(FILE_BYTES_MAX + 1)))
    }

    /// Reads a registry's text.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(mut text: impl BufRead) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let (mut vendors, mut by_name) = (Self::default(), HashMap::new());
        let (mut line, mut total) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = text.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            total += read as u64;
            if total > FILE_BYTES_MAX {
                return Err(wrong("larger than any registry of vendors"));
            }
            if read == 0 {
                break;
            }
            let Some((prefix, name)) = entry(&String::from_utf8_lossy(&line)) else { continue };
            if vendors.prefixes.len() >= PREFIXES_MAX {
                return Err(wrong("more prefixes than any registry of vendors"));
            }
            let at = match by_name.get(&name) {
                Some(at) => *at,
                None => {
                    let at = u32::try_from(vendors.names.len()).unwrap_or(u32::MAX);
                    vendors.names.push(name.clone());
                    by_name.insert(name, at);
                    at
                }
            };
            vendors.prefixes.push((prefix, at));
        }
        if vendors.prefixes.is_empty() {
            return Err(wrong("no registry of vendors: not a single prefix was understood"));
        }
        vendors.prefixes.sort_unstable();
        vendors.prefixes.dedup_by_key(|(prefix, _)| *prefix);
        vendors.prefixes.shrink_to_fit();
        Ok(vendors)
    }

    /// Whose block an address is in.
    #[must_use]
    pub fn of(&self, mac: Mac) -> Vendor<'_> {
        let bits = mac.0.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        let named = LENGTHS.iter().find_map(|length| {
            let key = key(bits, *length);
            let from = self.prefixes.partition_point(|(prefix, _)| *prefix < key);
            let (_, name) = self.prefixes.get(from).filter(|(prefix, _)| *prefix == key)?;
            self.names.get(usize::try_from(*name).ok()?)
        });
        match named {
            Some(name) => Vendor::Named(name),
            // The universal/local bit (IEEE 802-2014 §8.2.2).
            None if mac.0[0] & 2 != 0 => Vendor::Local,
            None => Vendor::Unknown,
        }
    }

    /// How many prefixes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// True for the table of a gateway that was given none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

/// A prefix and its name, where a line has them.
fn entry(line: &str) -> Option<(u64, Box<str>)> {
    let line = line.trim_end();
    // The IEEE's text says each block twice.
    if line.starts_with('#') || line.contains("(base 16)") {
        return None;
    }
    if let Some(rest) = ["MA-L,", "MA-M,", "MA-S,"].iter().find_map(|kind| line.strip_prefix(kind)) {
        // IEEE CSV: Registry,Assignment,Organization Name,Organization Address.
        let (digits, rest) = rest.split_once(',')?;
        let name = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?.0,
            None => rest.split(',').next()?,
        };
        return Some((prefix(digits, None)?, vendor_name(name)?));
    }
    if let Some((digits, name)) = line.split_once("(hex)") {
        // IEEE text: 28-6F-B9   (hex)		Nokia Shanghai Bell Co., Ltd.
        return Some((prefix(digits.trim(), None)?, vendor_name(name)?));
    }
    // Wireshark separates by tabulators, short name first; nmap by a space.
    let (digits, names) = line.split_once([' ', '\t'])?;
    let (digits, length) = match digits.split_once('/') {
        Some((digits, length)) => (digits, Some(length.parse().ok()?)),
        None => (digits, None),
    };
    let name = names.trim().rsplit('\t').next()?;
    Some((prefix(digits, length)?, vendor_name(name)?))
}

fn vendor_name(text: &str) -> Option<Box<str>> {
    text::printable(text.as_bytes(), NAME_BYTES_MAX).map(String::into_boxed_str)
}

/// Hexadecimal digits, with or without separators; as long as one of [`LENGTHS`], or cut to `length`.
fn prefix(text: &str, length: Option<u8>) -> Option<u64> {
    let (mut bits, mut digits) = (0, 0u8);
    for c in text.chars().filter(|c| !matches!(c, ':' | '-')) {
        digits += 1;
        if digits > 12 {
            return None;
        }
        bits = bits << 4 | u64::from(c.to_digit(16)?);
    }
    let length = length.unwrap_or(digits * 4);
    (LENGTHS.contains(&length) && digits * 4 >= length)
        .then(|| key(bits << (48 - u32::from(digits) * 4), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vendors(text: &str) -> Vendors {
        Vendors::read(text.as_bytes()).unwrap()
    }

    fn named(text: &str, mac: [u8; 6]) -> String {
        match vendors(text).of(Mac(mac)) {
            Vendor::Named(name) => name.to_owned(),
            other @ (Vendor::Local | Vendor::Unknown) => format!("{other:?}"),
        }
    }

    #[test]
    fn each_format_is_understood() {
        let mac = [0x28, 0x6f, 0xb9, 1, 2, 3];
        for text in [
            "OUI/MA-L   Organization\n\n28-6F-B9   (hex)\t\tNokia Shanghai Bell Co., Ltd.\r\n\
             286FB9     (base 16)\t\tNokia Shanghai Bell Co., Ltd.\r\n\t\t\t\tNo.388 Ning Qiao Road\r\n",
            "Registry,Assignment,Organization Name,Organization Address\r\n\
             MA-L,286FB9,\"Nokia Shanghai Bell Co., Ltd.\",\"No.388 Ning Qiao Road\"\r\n",
            "# nmap\n286FB9 Nokia Shanghai Bell Co., Ltd.\n",
            "28:6F:B9\tNokiaSha\tNokia Shanghai Bell Co., Ltd.\n",
        ] {
            assert_eq!(named(text, mac), "Nokia Shanghai Bell Co., Ltd.", "{text}");
        }
        assert_eq!(
            named("MA-L,002272,American Micro-Fuel,\"x\"\n", [0, 0x22, 0x72, 0, 0, 0]),
            "American Micro-Fuel"
        );
    }

    #[test]
    fn the_smallest_block_counts() {
        let text = "70:B3:D5\tIeee\tIEEE Registration Authority\n\
                    70:B3:D5:10:00:00/28\tMid\tMiddle block\n70:B3:D5:1F:D0:00/36\tSmall\tSmall block\n";
        assert_eq!(named(text, [0x70, 0xb3, 0xd5, 0x1f, 0xd7, 9]), "Small block");
        assert_eq!(named(text, [0x70, 0xb3, 0xd5, 0x1f, 0xe7, 9]), "Middle block");
        assert_eq!(named(text, [0x70, 0xb3, 0xd5, 0x2f, 0xd7, 9]), "IEEE Registration Authority");
        assert_eq!(named("MA-M,70B3D51,Middle,x\n", [0x70, 0xb3, 0xd5, 0x1f, 0xe7, 9]), "Middle");
    }

    #[test]
    fn an_address_that_its_sender_chose_is_said_to_be_one() {
        let table = vendors("286FB9 Nokia\n");
        assert_eq!(table.of(Mac([2, 0, 0, 0, 0, 1])), Vendor::Local);
        assert_eq!(table.of(Mac([0, 0, 0, 0, 0, 1])), Vendor::Unknown);
        assert_eq!(Vendors::default().of(Mac([0x28, 0x6f, 0xb9, 0, 0, 1])), Vendor::Unknown);
    }

    #[test]
    fn what_is_no_registry_is_refused_and_bounded() {
        let kind = |text: &str| Vendors::read(text.as_bytes()).unwrap_err().kind();
        assert_eq!(kind(""), io::ErrorKind::InvalidData);
        assert_eq!(kind("hello world\n[mqtt]\nlisten = 5\n"), io::ErrorKind::InvalidData);
        assert_eq!(kind(&"286FB9 N\n".repeat(PREFIXES_MAX + 1)), io::ErrorKind::InvalidData);
        let endless = BufReader::new(io::repeat(b'x'));
        assert_eq!(Vendors::read(endless).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([0-9a-fA-F:,\\-\t \n\"/()]|MA-L|hex|é){0,200}") {
            if let Ok(table) = Vendors::read(text.as_bytes()) {
                proptest::prop_assert!(!table.is_empty());
                let _vendor = table.of(Mac([0; 6]));
            }
        }
    }
}
