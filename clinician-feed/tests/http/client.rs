//! As much HTTP/1.1 as the tests need, and a WebSocket.

use std::net::SocketAddr;

use futures_util::StreamExt as _;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, ClientRequestBuilder, Message};

use crate::{PASSWORD, Site, USER};

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

pub(crate) async fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) async fn get(site: &Site, path: &str, more: &str) -> Answer {
    get_from(site.address, path, more).await
}

pub(crate) async fn post(site: &Site, path: &str, more: &str, body: &str) -> Answer {
    post_to(site.address, path, more, body).await
}

/// A body that need be no text.
pub(crate) async fn post_bytes(site: &Site, path: &str, more: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: feed\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
    );
    send(site.address, &[head.as_bytes(), body].concat()).await
}

pub(crate) async fn get_from(address: SocketAddr, path: &str, more: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: feed\r\nConnection: close\r\n{more}\r\n");
    send(address, request.as_bytes()).await
}

pub(crate) async fn post_to(address: SocketAddr, path: &str, more: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: feed\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    );
    send(address, request.as_bytes()).await
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\nOrigin: http://feed\r\n";

pub(crate) async fn log_in(site: &Site, user: &str, password: &str) -> Answer {
    let body = serde_json::json!({ "user": user, "password": password }).to_string();
    post(site, "/api/login", JSON, &body).await
}

/// The value of a `Cookie` field.
pub(crate) async fn cookie(site: &Site) -> String {
    let answer = log_in(site, USER, PASSWORD).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

pub(crate) type Socket = WebSocketStream<TcpStream>;

pub(crate) async fn open(
    site: &Site,
    query: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, tungstenite::Error> {
    open_at(site.address, query, headers).await
}

pub(crate) async fn open_at(
    address: SocketAddr,
    query: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, tungstenite::Error> {
    let uri = format!("ws://feed/api/stream{query}").parse().unwrap();
    let request = headers
        .iter()
        .fold(ClientRequestBuilder::new(uri), |request, (name, value)| request.with_header(*name, *value));
    let stream = TcpStream::connect(address).await.unwrap();
    // What the kernel may hold for a slow reader; its own choice may be tens of megabytes.
    socket2::SockRef::from(&stream).set_recv_buffer_size(64 << 10).unwrap();
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| socket)
}

/// The status with which an upgrade was refused.
pub(crate) fn refusal(result: Result<Socket, tungstenite::Error>) -> u16 {
    match result {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

/// The next message of a type; what comes before it is dropped.
pub(crate) async fn next_of(socket: &mut Socket, kind: &str) -> Json {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => {
                let message: Json = serde_json::from_str(&text).unwrap();
                if message["type"] == kind {
                    return message;
                }
            }
            Message::Close(frame) => panic!("closed: {frame:?}"),
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
        }
    }
}

/// Reads to the close; answers with its code and the numbers of the readings before it.
pub(crate) async fn until_close(socket: &mut Socket) -> (u16, Vec<u64>) {
    let mut numbers = Vec::new();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => {
                let message: Json = serde_json::from_str(&text).unwrap();
                numbers.extend(message["n"].as_u64());
            }
            Message::Close(frame) => return (frame.unwrap().code.into(), numbers),
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
        }
    }
}
