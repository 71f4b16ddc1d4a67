//! A ledger under test: a process of its own, spoken to as any client does.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test's own helpers, of which each file uses its part"
)]

pub mod cases;
pub mod ledger;
pub mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long any one condition may take: far above what it needs, so that only a fault runs into it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition that can only be looked at holds.
#[expect(clippy::disallowed_methods, reason = "a test's patience is real time")]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A JSON-RPC client.
#[derive(Debug, Clone, Copy)]
pub struct Rpc(pub SocketAddr);

impl Rpc {
    /// One HTTP request with these bytes; status and body.
    pub fn post_as(&self, content_type: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: ledger\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        // A server that refuses a long body may close before it has read all of it.
        drop(stream.write_all(body));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(broken)?;
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
        let body = &answer[end + 4..];
        if head.contains("transfer-encoding: chunked") {
            return Ok((status, unchunk(body).ok_or_else(broken)?));
        }
        Ok((status, body.to_vec()))
    }

    pub fn post(&self, body: &[u8]) -> Value {
        let (_, answer) = self.post_as("application/json", body).unwrap();
        serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&answer)))
    }

    pub fn try_call(&self, method: &str, params: Value) -> std::io::Result<Result<Value, Value>> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (_, answer) = self.post_as("application/json", call.to_string().as_bytes())?;
        let mut answer: Value = serde_json::from_slice(&answer)?;
        Ok(match answer.get_mut("error").map(Value::take) {
            Some(error) => Err(error),
            None => Ok(answer["result"].take()),
        })
    }

    /// The result of a call.
    pub fn ask(&self, method: &str, params: Value) -> Value {
        let result = self.try_call(method, params.clone()).unwrap();
        result.unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    /// The error of a call.
    pub fn error(&self, method: &str, params: Value) -> Value {
        match self.try_call(method, params.clone()).unwrap() {
            Ok(result) => panic!("{method} {params} gave {result}"),
            Err(error) => error,
        }
    }

    pub fn number(&self, method: &str, params: Value) -> u64 {
        number(&self.ask(method, params))
    }
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 4 + size..)?;
    }
}

/// A quantity.
pub fn number(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no quantity"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// Bytes.
pub fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_else(|| panic!("{value} is no text")).trim_start_matches("0x"))
        .unwrap()
}
