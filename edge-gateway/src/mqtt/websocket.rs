//! MQTT over WebSocket (§6): the handshake, and a stream of bytes over binary messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The subprotocol that a client must offer and is answered with (MQTT-6.0.0-3, -4).
pub const SUBPROTOCOL: &str = "mqtt";

/// What a message may have beyond the largest packet's body: its fixed header. A client may put several packets into a message or
/// one into several (MQTT-6.0.0-2); none puts more into one than fits.
const HEADER_BYTES: usize = 5;

/// Bytes read at once, as over TCP.
const READ_BYTES: usize = 4 * 1024;

/// Most bytes that wait to be written in one message.
const WRITE_BYTES: usize = 16 * 1024;

/// Shakes hands. A client that does not offer the subprotocol is answered 400.
///
/// # Errors
/// What is wrong with the handshake, or the socket's.
pub async fn accept<S>(stream: S, packet_bytes_max: usize) -> Result<MessageStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = config(packet_bytes_max);
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, answer, Some(config)).await?;
    Ok(MessageStream { socket, left: Bytes::new() })
}

/// The stream of a connection that has shaken hands.
pub async fn resume<S>(stream: S, packet_bytes_max: usize) -> MessageStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config(packet_bytes_max))).await;
    MessageStream { socket, left: Bytes::new() }
}

/// The bounds of a connection whose packets have at most `packet_bytes_max` bytes behind their header.
fn config(packet_bytes_max: usize) -> WebSocketConfig {
    let max = packet_bytes_max + HEADER_BYTES;
    WebSocketConfig::default()
        .max_message_size(Some(max))
        .max_frame_size(Some(max))
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * WRITE_BYTES)
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
fn answer(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names = offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if names.any(|name| name.trim() == SUBPROTOCOL) {
        let value = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some("the subprotocol is mqtt\n".to_owned()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

/// Bytes over binary messages.
#[derive(Debug)]
pub struct MessageStream<S> {
    socket: WebSocketStream<S>,
    /// What of the last message has not been read.
    left: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MessageStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.left = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                // MQTT-6.0.0-1.
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "not a binary message",
                    )));
                }
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
        let count = self.left.len().min(buf.remaining());
        buf.put_slice(&self.left[..count]);
        self.left.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MessageStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(failed)?;
        let part = &bytes[..bytes.len().min(WRITE_BYTES)];
        Pin::new(&mut self.socket)
            .start_send(Message::Binary(Bytes::copy_from_slice(part)))
            .map_err(failed)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(failed)
    }
}

fn failed(error: Error) -> io::Error {
    if let Error::Io(error) = error { error } else { io::Error::new(io::ErrorKind::InvalidData, error) }
}
