//! The reader against a feed that drops it in the middle.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::*;

/// Answers one login with a status line.
async fn answer_login(listener: &TcpListener, answer: &str) {
    let (mut stream, _peer) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    let text = String::from_utf8(request).unwrap();
    assert!(text.starts_with("POST /api/login HTTP/1.1\r\n") && text.contains(r#""user":"nurse""#), "{text}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

const WELCOME: &str = "HTTP/1.1 204 No Content\r\nSet-Cookie: caregate_session=s3; HttpOnly\r\n\r\n";

/// Takes one upgrade, checks cookie and path, and sends messages.
#[expect(clippy::result_large_err, reason = "tungstenite's callback has this type")]
async fn serve(listener: &TcpListener, path: &str, messages: &[Value]) -> WebSocketStream<TcpStream> {
    answer_login(listener, WELCOME).await;
    let (stream, _peer) = listener.accept().await.unwrap();
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        assert_eq!(request.uri().to_string(), path);
        assert_eq!(request.headers()["cookie"], "caregate_session=s3");
        assert!(request.headers().contains_key("origin"));
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, check).await.unwrap();
    for message in messages {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    socket
}

fn reading(n: u64) -> Value {
    json!({"type": "reading", "n": n, "device": "m", "stream": "spo2", "seq": n, "numeric": 97.0})
}

fn credentials() -> Credentials {
    Credentials { user: "nurse".to_owned(), password: "pw".to_owned() }
}

#[tokio::test]
async fn resumes_after_the_last_reading() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let reader = tokio::spawn(async move {
        let mut out = Vec::new();
        let count = follow(&address, &credentials(), None, &mut out, &stopped).await.unwrap();
        (count, String::from_utf8(out).unwrap())
    });
    let hello = json!({"type": "hello", "next": 5});
    drop(serve(&listener, "/api/stream", std::slice::from_ref(&hello)).await);
    drop(serve(&listener, "/api/stream?from=5", &[hello.clone(), reading(5), reading(6)]).await);
    let mut socket = serve(&listener, "/api/stream?from=7", &[reading(7)]).await;
    // The answer to a ping shows that all before it is written.
    socket.send(Message::Ping(vec![1].into())).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Pong(_)))));
    stop.cancel();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_))) | None));
    let (count, text) = reader.await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((count, lines.len()), (5, 5));
    assert!(lines.iter().all(|line| line["arrived_ms"].as_f64().unwrap() > 1.6e12));
    let numbers: Vec<_> = lines.iter().filter_map(|line| line["n"].as_u64()).collect();
    assert_eq!(numbers, [5, 6, 7]);
}

#[tokio::test]
async fn a_wrong_password_or_message_ends_the_reading() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (stop, mut out) = (CancellationToken::new(), Vec::new());
    let (credentials, untyped) = (credentials(), [json!({"n": 1})]);
    let (result, ()) = tokio::join!(
        follow(&address, &credentials, None, &mut out, &stop),
        answer_login(&listener, "HTTP/1.1 401 Unauthorized\r\n\r\n")
    );
    assert!(matches!(result, Err(FeedError::Login(LoginError::Refused))));
    let (result, _socket) = tokio::join!(
        follow(&address, &credentials, Some(3), &mut out, &stop),
        serve(&listener, "/api/stream?from=3", &untyped)
    );
    assert!(matches!(result, Err(FeedError::Message { count: 1, .. })));
}

#[test]
fn the_cursor_follows_a_feed_that_counts_anew() {
    let mut cursor = Cursor::new(Some(90));
    cursor.handle_message(r#"{"type":"hello","next":3}"#).unwrap();
    assert_eq!(cursor.path(), "/api/stream?from=3");
    cursor.handle_message(r#"{"type":"chain"}"#).unwrap();
    assert_eq!(cursor, Cursor::new(Some(3)));
    assert!(cursor.handle_message("[]").is_err());
}

#[test]
fn what_came_ahead_is_taken_once_and_not_resumed_behind() {
    let mut cursor = Cursor::new(Some(5));
    let mut take = |n: u64, ahead: bool| {
        let is_new = cursor.handle_message(&json!({"type": "reading", "n": n, "ahead": ahead}).to_string());
        (is_new.unwrap(), cursor.path().rsplit('=').next().unwrap().parse::<u64>().unwrap())
    };
    assert_eq!((take(90, true), take(5, false), take(91, true)), ((true, 5), (true, 6), (true, 6)));
    // The connection was lost: the feed does not know what it has sent ahead.
    assert_eq!((take(90, true), take(91, false)), ((false, 6), (false, 92)));
    assert_eq!(take(92, false), (true, 93));
    assert_eq!(take(90, true), (false, 93));
}

#[test]
fn a_line_keeps_the_message() {
    let text = line("{\"type\":\"x\",\n\"v\":0.1}", 1.5);
    assert_eq!(text, "{\"arrived_ms\":1.5,\"type\":\"x\", \"v\":0.1}\n");
}
