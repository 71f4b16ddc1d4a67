//! The parameters of a search (R4 §3.1.1). Pure.

use caregate_protocol::id::PatientId;
use caregate_protocol::policy::RelationshipId;
use thiserror::Error;

use super::date::DateFilter;
use super::resource::Coding;

/// Matches on a page unless asked otherwise.
const COUNT_DEFAULT: usize = 100;
/// Most matches on a page: about a megabyte of numerics.
pub const COUNT_MAX: usize = 1000;
/// Most parameters, and most codes in one: a person's query has a handful.
const PARAMETERS_MAX: usize = 32;

/// The parameters, for the CapabilityStatement: name and type.
pub const PARAMETERS: [(&str, &str); 5] = [
    ("patient", "reference"),
    ("code", "token"),
    ("combo-code", "token"),
    ("category", "token"),
    ("date", "date"),
];

/// Why a query is not searched for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SearchError {
    /// Not a parameter that is known here; leaving it out would show more than was asked for.
    #[error("unknown search parameter `{0}`")]
    Unknown(String),
    /// A value that has no meaning.
    #[error("`{parameter}={value}`: expected {expected}")]
    Value {
        /// Of which parameter.
        parameter: &'static str,
        /// As given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Too long.
    #[error("more than {PARAMETERS_MAX} parameters or codes in one")]
    TooMany,
    /// A format that is not spoken here.
    #[error("`_format={0}`: only JSON is written here")]
    Format(String),
}

/// One token: `code`, `system|code`, `|code` or `system|`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    system: Option<String>,
    code: Option<String>,
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let (system, code) = match text.split_once('|') {
            Some((system, code)) => (Some(system.to_owned()), Some(code).filter(|code| !code.is_empty())),
            None => (None, Some(text)),
        };
        let empty = system.as_deref().unwrap_or_default().is_empty() && code.is_none_or(str::is_empty);
        (!empty).then(|| Self { system, code: code.map(str::to_owned) })
    }

    fn matches(&self, coding: &Coding) -> bool {
        self.system.as_ref().is_none_or(|system| system == coding.system)
            && self.code.as_ref().is_none_or(|code| *code == coding.code)
    }
}

/// Any of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(Token::parse).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether any of the codings is meant.
    #[must_use]
    pub fn match_any(&self, codings: &[Coding]) -> bool {
        codings.iter().any(|coding| self.0.iter().any(|token| token.matches(coding)))
    }
}

/// Where a page ends: time and number of its last match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Unix microseconds.
    pub effective_us: i64,
    /// The reading's number.
    pub n: u64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let (time, n) = text.split_once('.')?;
        Some(Self { effective_us: time.parse().ok()?, n: n.parse().ok()? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.effective_us, self.n)
    }
}

/// What is searched for; all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Whose; more than one of them is nobody.
    pub patients: Vec<PatientId>,
    /// Of the Observation.
    pub code: Vec<Tokens>,
    /// Of the Observation or a component.
    pub combo_code: Vec<Tokens>,
    /// Of the Observation.
    pub category: Vec<Tokens>,
    /// When.
    pub date: Vec<DateFilter>,
    /// Matches on a page.
    pub count: usize,
    /// Only what follows this one.
    pub after: Option<Cursor>,
}

fn value<T>(
    parameter: &'static str,
    value: &str,
    expected: &'static str,
    parsed: Option<T>,
) -> Result<T, SearchError> {
    parsed.ok_or_else(|| SearchError::Value { parameter, value: value.chars().take(100).collect(), expected })
}

impl Search {
    /// Takes the pairs of a query string.
    ///
    /// # Errors
    /// [`SearchError`], naming the parameter.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, SearchError> {
        let mut search = Self {
            patients: Vec::new(),
            code: Vec::new(),
            combo_code: Vec::new(),
            category: Vec::new(),
            date: Vec::new(),
            count: COUNT_DEFAULT,
            after: None,
        };
        if pairs.len() > PARAMETERS_MAX {
            return Err(SearchError::TooMany);
        }
        for (name, text) in pairs {
            if text.matches(',').count() >= PARAMETERS_MAX {
                return Err(SearchError::TooMany);
            }
            search.take(name, text)?;
        }
        Ok(search)
    }

    fn take(&mut self, name: &str, text: &str) -> Result<(), SearchError> {
        const TOKEN: &str = "code, system|code, |code or system|, separated by commas";
        match name {
            "patient" => {
                let id = text.strip_prefix("Patient/").unwrap_or(text);
                let id = id.parse().ok().filter(|_| !id.starts_with("0x"));
                self.patients.push(value("patient", text, "32 hexadecimal digits", id)?);
            }
            "code" => self.code.push(value("code", text, TOKEN, Tokens::parse(text))?),
            "combo-code" => self.combo_code.push(value("combo-code", text, TOKEN, Tokens::parse(text))?),
            "category" => self.category.push(value("category", text, TOKEN, Tokens::parse(text))?),
            "date" => self.date.push(date(text)?),
            "_count" => self.count = count(text)?,
            "_cursor" => {
                self.after = Some(value("_cursor", text, "what a next link has", Cursor::parse(text))?);
            }
            "_format" => format(text)?,
            other => return Err(SearchError::Unknown(other.chars().take(100).collect())),
        }
        Ok(())
    }
}

fn count(text: &str) -> Result<usize, SearchError> {
    let count: usize = value("_count", text, "a whole number", text.parse().ok())?;
    Ok(count.min(COUNT_MAX))
}

fn format(text: &str) -> Result<(), SearchError> {
    match text {
        "json" | "application/json" | "application/fhir+json" | "application/fhir json" => Ok(()),
        other => Err(SearchError::Format(other.chars().take(100).collect())),
    }
}

fn date(text: &str) -> Result<DateFilter, SearchError> {
    let expected = "[eq|ne|lt|le|gt|ge]yyyy[-mm[-dd[Thh:mm[:ss[.fff]](Z|+hh:mm)]]]";
    value("date", text, expected, DateFilter::parse(text))
}

/// What is searched for in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSearch {
    /// When it was noted.
    pub date: Vec<DateFilter>,
    /// Matches on a page.
    pub count: usize,
    /// Only entries below this number.
    pub before: Option<u64>,
}

impl LogSearch {
    /// The parameters, for the CapabilityStatement.
    pub const PARAMETERS: [(&str, &str); 1] = [("date", "date")];

    /// Takes the pairs of a query string.
    ///
    /// # Errors
    /// [`SearchError`], naming the parameter.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, SearchError> {
        let mut search = Self { date: Vec::new(), count: COUNT_DEFAULT, before: None };
        if pairs.len() > PARAMETERS_MAX {
            return Err(SearchError::TooMany);
        }
        for (name, text) in pairs {
            match name.as_str() {
                "date" => search.date.push(date(text)?),
                "_count" => search.count = count(text)?,
                "_cursor" => {
                    search.before = Some(value("_cursor", text, "what a next link has", text.parse().ok())?);
                }
                "_format" => format(text)?,
                other => return Err(SearchError::Unknown(other.chars().take(100).collect())),
            }
        }
        Ok(search)
    }
}

/// What is searched for among grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSearch {
    /// Of which relationships; more than one of them is none.
    pub relationships: Vec<RelationshipId>,
    /// Matches on a page, [`Self::COUNT_MAX`] at most.
    pub count: usize,
    /// Only relationships above this one.
    pub after: Option<RelationshipId>,
}

impl GrantSearch {
    /// Most matches on a page: the ledger is asked for the time of each one's block.
    pub const COUNT_MAX: usize = 100;

    /// Takes the pairs of a query string; `by` is the parameter that names a grant: `_id` or `target`.
    ///
    /// # Errors
    /// [`SearchError`], naming the parameter.
    pub fn parse(by: &'static str, pairs: &[(String, String)]) -> Result<Self, SearchError> {
        let mut search = Self { relationships: Vec::new(), count: Self::COUNT_MAX, after: None };
        if pairs.len() > PARAMETERS_MAX {
            return Err(SearchError::TooMany);
        }
        for (name, text) in pairs {
            match name.as_str() {
                name if name == by => {
                    let id = text.strip_prefix("Consent/").unwrap_or(text);
                    search.relationships.push(value(by, text, "64 hexadecimal digits", relationship(id))?);
                }
                "_count" => search.count = count(text)?.min(Self::COUNT_MAX),
                "_cursor" => {
                    search.after = Some(value("_cursor", text, "what a next link has", relationship(text))?);
                }
                "_format" => format(text)?,
                other => return Err(SearchError::Unknown(other.chars().take(100).collect())),
            }
        }
        Ok(search)
    }
}

/// A Consent's id is the name of its relationship.
pub(super) fn relationship(id: &str) -> Option<RelationshipId> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(id, &mut bytes).ok()?;
    Some(RelationshipId(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fhir::resource::{LOINC, MDC};

    fn parse(pairs: &[(&str, &str)]) -> Result<Search, SearchError> {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Search::parse(&pairs)
    }

    #[test]
    fn tokens_match_code_and_system() {
        let coding =
            [Coding { system: LOINC, code: "8867-4".into() }, Coding { system: MDC, code: "147842".into() }];
        let matches = |text: &str| Tokens::parse(text).unwrap().match_any(&coding);
        for text in [
            "8867-4",
            "http://loinc.org|8867-4",
            "http://loinc.org|",
            "1,147842",
            "urn:iso:std:iso:11073:10101|147842",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in ["8867", "http://loinc.org|147842", "|8867-4", "http://example.org|"] {
            assert!(!matches(text), "{text}");
        }
        assert!(
            Tokens::parse("").is_none() && Tokens::parse("|").is_none() && Tokens::parse("a,,b").is_none()
        );
    }

    #[test]
    fn a_search_is_taken() {
        let id = "01".repeat(16);
        let reference = format!("Patient/{id}");
        let search = parse(&[
            ("patient", &reference),
            ("date", "ge2026"),
            ("date", "lt2027"),
            ("_count", "5000"),
            ("_cursor", "9.7"),
        ]);
        let search = search.unwrap();
        assert_eq!((search.patients[0], search.date.len(), search.count), (PatientId([1; 16]), 2, COUNT_MAX));
        assert_eq!(search.after, Some(Cursor { effective_us: 9, n: 7 }));
        assert_eq!(Cursor::parse(&search.after.unwrap().to_string()), search.after);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (("patient", "nobody"), "`patient=nobody`: expected 32 hexadecimal digits"),
            (("date", "yesterday"), "`date=yesterday`"),
            (("_count", "-1"), "`_count=-1`"),
            (("code", ""), "`code=`"),
            (("subject:missing", "true"), "unknown search parameter `subject:missing`"),
            (("_format", "xml"), "only JSON"),
            (("_cursor", "x"), "`_cursor=x`"),
        ];
        for (pair, expected) in cases {
            let error = parse(&[pair]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(parse(&[("date", "2026"); 33]), Err(SearchError::TooMany));
        assert_eq!(parse(&[("code", &",a".repeat(40))]), Err(SearchError::TooMany));
    }

    proptest! {
        #[test]
        fn no_query_panics(name in "patient|code|date|category|_count|_cursor|_format|.{0,5}", text in ".{0,40}") {
            drop(parse(&[(&name, &text)]));
        }
    }
}
