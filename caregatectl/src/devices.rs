//! `caregatectl devices`: who is seen on a gateway's sensor network, by its local door.

use std::path::PathBuf;

use anyhow::Context as _;
use caregate_host::key_file;
use clap::Args;
use hyper::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::args::utc;
use crate::http::{Answer, Ask, Server};
use crate::outcome::{Done, Failure, Outcome};
use crate::table::table;

/// Show who is seen on a gateway's sensor network: vendor, addresses, last seen, bound or not
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The gateway's local door: http://… or https://…
    #[arg(long, value_name = "URL")]
    gateway: String,
    /// The CAs that an https:// door's certificate may come from (PEM)
    #[arg(long, value_name = "FILE")]
    gateway_ca: Option<PathBuf>,
    /// File with the access code of the gateway's label (mode 0600)
    #[arg(long, value_name = "FILE")]
    access_code_file: PathBuf,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let server = Server::new(&arguments.gateway, || {
        let ca = arguments.gateway_ca.as_deref().context("an https:// door needs --gateway-ca")?;
        crate::http::with_ca(ca)
    })?;
    let code = key_file::read(&arguments.access_code_file)?;
    let code = std::str::from_utf8(&code).context("the access code is no text")?.trim();
    let login = json!({ "code": code }).to_string().into_bytes();
    let body = Some(("application/json", login));
    let answer =
        server.exchange(Ask { method: Method::POST, path: "/api/login", body, ..Ask::default() }).await?;
    let cookie = session(&answer)?;
    let headers = vec![(header::COOKIE, cookie)];
    let ask = Ask { path: "/api/devices", headers: headers.clone(), ..Ask::default() };
    let answer = server.exchange(ask).await?;
    // Sessions are few; one that was asked a single question need not wait for its end.
    let logout = Ask { method: Method::POST, path: "/api/logout", headers, ..Ask::default() };
    drop(server.exchange(logout).await);
    if answer.status != StatusCode::OK {
        return Err(refused(&answer));
    }
    let devices: Value = serde_json::from_slice(&answer.body).context("the gateway's answer is no JSON")?;
    Ok(Done::new(listed(&devices), json!({ "devices": devices })))
}

fn refused(answer: &Answer) -> Failure {
    let body = answer.json();
    let text = body["error"].as_str().unwrap_or_else(|| answer.status.canonical_reason().unwrap_or("error"));
    Failure::refused(format_args!("the gateway refuses: {text}"), answer.status.as_u16())
}

/// The session's cookie, as it is to be sent back.
fn session(answer: &Answer) -> Result<String, Failure> {
    if !answer.status.is_success() {
        return Err(refused(answer));
    }
    let cookie = answer.headers.get(header::SET_COOKIE).and_then(|value| value.to_str().ok());
    let pair = cookie.and_then(|cookie| cookie.split(';').next()).filter(|pair| pair.contains('='));
    Ok(pair.map(str::to_owned).context("the gateway gave no session")?)
}

fn listed(devices: &Value) -> String {
    let mut rows = devices.as_array().cloned().unwrap_or_default();
    for row in &mut rows {
        let seen = row["last_seen_s"].as_u64().map(utc);
        row["last_seen"] = seen.into();
    }
    let columns = [
        ("MAC", "/mac"),
        ("DEVICE", "/device"),
        ("VENDOR", "/vendor"),
        ("NAME", "/name"),
        ("PORT", "/port"),
        ("ADDRESSES", "/addresses"),
        ("QUARANTINE", "/is_quarantined"),
        ("LAST_SEEN", "/last_seen"),
    ];
    table(&rows, &columns)
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn answer(status: StatusCode, cookie: Option<&str>) -> Answer {
        let headers: HeaderMap =
            cookie.map(|cookie| (header::SET_COOKIE, cookie.parse().unwrap())).into_iter().collect();
        Answer { status, headers, body: r#"{"error":"that is not the code on the label"}"#.into() }
    }

    #[test]
    fn the_cookie_goes_back_without_its_attributes() {
        let good = answer(StatusCode::NO_CONTENT, Some("caregate_local=ab; Path=/; HttpOnly"));
        assert_eq!(session(&good).unwrap(), "caregate_local=ab");
        assert!(matches!(session(&answer(StatusCode::NO_CONTENT, None)), Err(Failure::Failed(_))));
        match session(&answer(StatusCode::FORBIDDEN, None)).unwrap_err() {
            Failure::Refused { text, reason } => {
                assert!(text.contains("code on the label") && reason == "403", "{text}");
            }
            other @ (Failure::Failed(_) | Failure::Faulty { .. }) => panic!("{other:?}"),
        }
    }
}
