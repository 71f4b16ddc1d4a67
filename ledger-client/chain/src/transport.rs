//! JSON-RPC over HTTP/1.1 for alloy: a few kept connections, bounded answers, one time limit for the whole exchange.
//!
//! alloy's own HTTP transports bring a TLS library of their own; what the ledger says is checked by whoever uses it, so plain HTTP to
//! a node on the same machine or behind a tunnel is enough ([ADR 12](../../../docs/adr/0012-wallet-and-chain-client.md)).

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config::Endpoint;

/// Largest answer: the events of a busy day, or proofs of a full watch list's batch. More is asked for in smaller portions.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Connections that are kept: the follower's, and some that send or prove meanwhile.
const IDLE_MAX: usize = 4;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum HttpFault {
    #[error("can't connect to {authority}: {source}")]
    Connect { authority: String, source: std::io::Error },
    #[error("no answer from {authority} within {} ms", .limit.as_millis())]
    Timeout { authority: String, limit: Duration },
    #[error("{authority}: {source}")]
    Http { authority: String, source: hyper::Error },
    #[error("{authority} answers with status {status}")]
    Status { authority: String, status: StatusCode },
    #[error("{authority} answers with more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge { authority: String },
}

type Sender = SendRequest<Full<Bytes>>;

#[derive(Debug)]
struct Node {
    endpoint: Endpoint,
    limit: Duration,
    idle: Mutex<Vec<Sender>>,
}

/// A node's JSON-RPC.
#[derive(Debug, Clone)]
pub(crate) struct Http(Arc<Node>);

impl Http {
    pub(crate) fn new(endpoint: Endpoint, limit: Duration) -> Self {
        Self(Arc::new(Node { endpoint, limit, idle: Mutex::new(Vec::new()) }))
    }

    async fn exchange(&self, body: Bytes) -> Result<(StatusCode, Bytes), HttpFault> {
        let limit = self.0.limit;
        tokio::time::timeout(limit, self.unlimited(body))
            .await
            .map_err(|_elapsed| HttpFault::Timeout { authority: self.authority(), limit })?
    }

    async fn unlimited(&self, body: Bytes) -> Result<(StatusCode, Bytes), HttpFault> {
        let failed = |source| HttpFault::Http { authority: self.authority(), source };
        let (mut sender, response) = self.send(self.request(body).map_err(failed)?).await?;
        let status = response.status();
        let body = match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(HttpFault::TooLarge { authority: self.authority() });
            }
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(source) => return Err(failed(*source)),
                Err(_other) => return Err(HttpFault::Status { authority: self.authority(), status }),
            },
        };
        if sender.ready().await.is_ok() {
            let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(sender);
            }
        }
        Ok((status, body))
    }

    fn authority(&self) -> String {
        self.0.endpoint.authority.clone()
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        // Both were part of a URL that was parsed.
        if let Ok(path) = self.0.endpoint.path.parse() {
            *request.uri_mut() = path;
        }
        if let Ok(host) = self.0.endpoint.authority.parse() {
            request.headers_mut().insert(header::HOST, host);
        }
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(request)
    }

    /// On a kept connection, or on a new one where the node has closed it meanwhile.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Sender, Response<Incoming>), HttpFault> {
        let failed = |source| HttpFault::Http { authority: self.authority(), source };
        let mut request = request;
        loop {
            let kept = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut sender) = kept else { break };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut error) => match error.take_message() {
                    // Nothing of it has been sent.
                    Some(unsent) => request = unsent,
                    None => return Err(failed(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(failed)?;
        Ok((sender, response))
    }

    async fn connect(&self) -> Result<Sender, HttpFault> {
        let refused = |source| HttpFault::Connect { authority: self.authority(), source };
        let stream = TcpStream::connect(&self.0.endpoint.authority).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| HttpFault::Http { authority: self.authority(), source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the ledger's node ended");
            }
        });
        Ok(sender)
    }
}

impl Service<RequestPacket> for Http {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let text = packet.serialize().map_err(TransportError::ser_err)?;
            let body = Bytes::copy_from_slice(text.get().as_bytes());
            let (status, body) = this.exchange(body).await.map_err(TransportErrorKind::custom)?;
            serde_json::from_slice(&body).map_err(|error| {
                if status.is_success() {
                    TransportError::deser_err(error, String::new())
                } else {
                    TransportErrorKind::custom(HttpFault::Status { authority: this.authority(), status })
                }
            })
        })
    }
}
