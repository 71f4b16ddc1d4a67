//! Lists for people: columns out of JSON objects.

use serde_json::Value;

/// One column: its heading, and where in an object its value lies (`/a/b`).
pub(crate) type Column = (&'static str, &'static str);

/// Text of a value: nothing for null; lists with commas.
fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.chars().filter(|character| !character.is_control()).collect(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Array(entries)) if entries.is_empty() => "-".to_owned(),
        Some(Value::Array(entries)) => {
            entries.iter().map(|entry| text(Some(entry))).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// Rows under headings, each column as wide as its widest value.
pub(crate) fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut lines = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(_, at)| text(row.pointer(at))).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            json!({ "name": "gateway-1", "bundle": { "epoch": 12 }, "on": true, "list": ["a", "b"] }),
            json!({ "name": "g", "bundle": null, "on": false, "list": [] }),
        ];
        let columns = [("NAME", "/name"), ("EPOCH", "/bundle/epoch"), ("ON", "/on"), ("LIST", "/list")];
        let expected = "NAME       EPOCH  ON   LIST\ngateway-1  12     yes  a,b\ng          -      no   -";
        assert_eq!(table(&rows, &columns), expected);
        assert_eq!(table(&[], &columns[..1]), "NAME");
    }

    #[test]
    fn a_peers_text_does_not_move_the_cursor() {
        assert_eq!(table(&[json!({ "a": "x\u{1b}[2J\ny" })], &[("A", "/a")]), "A\nx[2Jy");
    }
}
