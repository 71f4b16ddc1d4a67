//! Configuration files: TOML into a type; a wrong file is one sentence with file, line and key.
//!
//! Types should carry `#[serde(deny_unknown_fields)]`, so that a misspelt key is an error and not a default.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Largest configuration file: a core with 10 000 gateways at 100 bytes each fits; a disk image passed by mistake doesn't.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file has more than [`CONFIG_BYTES_MAX`].
    #[error("{path}: longer than {CONFIG_BYTES_MAX} bytes", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}: {key}{message}", path = .path.display(), key = Named(.key.as_deref()))]
    Content {
        /// The file.
        path: PathBuf,
        /// Line of the wrong place, from 1.
        line: usize,
        /// Dotted key of the wrong place; none where the text is no TOML.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
}

struct Named<'a>(Option<&'a str>);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |key| write!(f, "`{key}`: "))
    }
}

/// Reads the TOML file at `path` into `T`.
///
/// # Errors
/// [`ConfigError`]: one sentence naming the file, and the line and key where something is wrong.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let failed = |source| ConfigError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    parse(path, &text)
}

/// Reads TOML text into `T`; `path` is only named in errors.
///
/// # Errors
/// [`ConfigError::Content`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let before = text.get(..span.start).unwrap_or(text);
        ConfigError::Content {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            key: key_at(text, &span),
            // toml puts hints on lines of their own.
            message: printable(&error.message().trim().replace('\n', "; ")),
        }
    })
}

/// The dotted key whose name or value holds the span; none for text that is no TOML or for the root table.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    let root = DeTable::parse(text).ok()?;
    let mut path = Vec::new();
    descend(root.get_ref(), span, &mut path);
    (!path.is_empty()).then(|| path.join("."))
}

fn descend(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) {
    for (key, value) in table {
        if holds(&key.span(), span) {
            path.push(printable(key.get_ref()));
            return;
        }
        if reaches(value, span) {
            path.push(printable(key.get_ref()));
            return descend_value(value, span, path);
        }
    }
}

fn descend_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut Vec<String>) {
    if let DeValue::Table(table) = value.get_ref() {
        descend(table, span, path);
    } else if let DeValue::Array(entries) = value.get_ref()
        && let Some(index) = entries.iter().position(|entry| reaches(entry, span))
        && let Some(last) = path.last_mut()
    {
        last.push_str(&format!("[{index}]"));
        if let Some(entry) = entries.get(index) {
            descend_value(entry, span, path);
        }
    }
}

/// A file's own text, without what would break the sentence or a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// True where the value or anything below it holds the span: a table's own span is its header alone.
fn reaches(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    if holds(&value.span(), span) {
        return true;
    }
    if let DeValue::Table(table) = value.get_ref() {
        table.iter().any(|(key, value)| holds(&key.span(), span) || reaches(value, span))
    } else if let DeValue::Array(entries) = value.get_ref() {
        entries.iter().any(|entry| reaches(entry, span))
    } else {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what is refused matters here")]
    struct Sample {
        listen: String,
        uplink: Uplink,
        #[serde(default)]
        gateway: Vec<Gateway>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Uplink {
        port: u16,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what is refused matters here")]
    struct Gateway {
        name: String,
    }

    fn sentence(text: &str) -> String {
        let error = parse::<Sample>(Path::new("core.toml"), text).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn a_good_file_loads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core.toml");
        std::fs::write(&path, "listen = 'a'\n[uplink]\nport = 1\n[[gateway]]\nname = 'g'\n").unwrap();
        let sample: Sample = load(&path).unwrap();
        assert_eq!((sample.uplink.port, sample.gateway.len()), (1, 1));
    }

    #[test]
    fn wrong_type_names_line_and_key() {
        let error = sentence("listen = 'a'\n\n[uplink]\nport = 'x'\n");
        assert!(error.starts_with("core.toml:4: `uplink.port`: invalid type"), "{error}");
        let error = sentence("listen = 'a'\nuplink = { port = 70000 }\n");
        assert!(error.starts_with("core.toml:2: `uplink.port`: "), "{error}");
    }

    #[test]
    fn unknown_key_names_it() {
        let error = sentence("listen = 'a'\n[uplink]\nport = 1\nprot = 2\n");
        assert!(error.starts_with("core.toml:4: `uplink.prot`: unknown field"), "{error}");
    }

    #[test]
    fn missing_key_names_it() {
        let error = sentence("[uplink]\nport = 1\n");
        assert!(error.contains("missing field `listen`"), "{error}");
        let error = sentence("listen = 'a'\n[uplink]\n");
        assert!(error.starts_with("core.toml:2: `uplink`: missing field `port`"), "{error}");
    }

    #[test]
    fn entry_of_an_array_is_named_by_number() {
        let error = sentence("listen='a'\nuplink={port=1}\n[[gateway]]\nname='g'\n[[gateway]]\nname=5\n");
        assert!(error.starts_with("core.toml:6: `gateway[1].name`: "), "{error}");
    }

    #[test]
    fn broken_toml_names_the_line() {
        let error = sentence("listen = 'a'\n= 4\n");
        assert!(error.starts_with("core.toml:2: "), "{error}");
        assert!(sentence("a = 1\na = 2\n").starts_with("core.toml:2: "));
    }

    #[test]
    fn files_that_are_absent_or_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.toml");
        assert!(load::<Sample>(&path).unwrap_err().to_string().contains("none.toml"));
        std::fs::write(&path, " ".repeat(usize::try_from(CONFIG_BYTES_MAX).unwrap() + 1)).unwrap();
        assert!(matches!(load::<Sample>(&path), Err(ConfigError::TooLarge { .. })));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_in_the_file_the_error_is_one_line(text in "([a-z\"'\\[\\]{}=.#0-9\\\\ \t\n\u{1}é-]|listen|uplink|port|gateway|name){0,80}") {
            if let Err(error) = parse::<Sample>(Path::new("core.toml"), &text) {
                let error = error.to_string();
                proptest::prop_assert!(error.starts_with("core.toml:") && !error.chars().any(char::is_control), "{}", error);
            }
        }
    }
}
