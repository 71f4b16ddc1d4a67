//! Errors as RFC 9457 has them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use caregate_protocol::openflow::ErrorKind;
use serde_json::{Map, Value, json};

/// One problem (RFC 9457 §3). Its type is `about:blank`: the status says what kind it is, the detail what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    extensions: Map<String, Value>,
}

impl Problem {
    /// A problem of this status.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl ToString) -> Self {
        Self { status, detail: detail.to_string(), extensions: Map::new() }
    }

    /// Adds a member of our own (§3.2).
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.extensions.insert(key.to_owned(), value);
        self
    }

    /// What happened.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A switch refuses with an error of its own.
    #[must_use]
    pub fn of_switch(kind: ErrorKind) -> Self {
        let detail = format!("the switch refuses: {}", kind.as_str());
        Self::new(StatusCode::CONFLICT, detail).with("error", error(kind))
    }
}

/// An OpenFlow error by numbers and names.
pub(super) fn error(kind: ErrorKind) -> Value {
    let (error_type, code) = kind.numbers();
    json!({ "type": error_type, "code": code, "type_name": kind.type_name(), "code_name": kind.as_str() })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = self.extensions;
        body.insert("type".into(), json!("about:blank"));
        body.insert("title".into(), json!(self.status.canonical_reason().unwrap_or("error")));
        body.insert("status".into(), json!(self.status.as_u16()));
        body.insert("detail".into(), json!(self.detail));
        let body = Value::Object(body).to_string();
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
