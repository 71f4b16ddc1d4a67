//! Files that somebody hands over: read up to a bound.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// JSON of at most `bytes_max`.
///
/// # Errors
/// Names the file, and what is wrong with it.
pub fn read_json<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> anyhow::Result<T> {
    let named = || path.display().to_string();
    let bytes = std::fs::metadata(path).with_context(named)?.len();
    ensure!(bytes <= bytes_max, "{}: has {bytes} bytes, allowed are {bytes_max}", named());
    serde_json::from_slice(&std::fs::read(path).with_context(named)?).with_context(named)
}

/// Any JSON in which no object has a name twice. Which of the two counts is each reader's own affair (RFC 8259 §4): a person might be shown
/// one and the ledger given the other.
#[derive(Debug)]
pub struct Unambiguous(pub Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unambiguous(value))) = entries.next_entry::<String, Unambiguous>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("`{name}` is there twice")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_names_nothing_twice_is_what_it_is_and_anything_else_is_refused_with_its_name() {
        for text in
            [r#"{"a":[1,-2,0.5,null,true,{"a":"b"},{"a":{}}],"b":{"a":18446744073709551615}}"#, "[]", "7"]
        {
            let Unambiguous(value) = serde_json::from_str(text).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        }
        for text in [r#"{"status":1,"status":1}"#, r#"[{"a":{"status":null,"b":0,"status":2}}]"#] {
            let refused = serde_json::from_str::<Unambiguous>(text).unwrap_err().to_string();
            assert!(refused.starts_with("`status` is there twice at line 1"), "{refused}");
        }
        assert!(serde_json::from_str::<Unambiguous>(&"[".repeat(1000)).is_err(), "as deep as it likes");
    }
}
