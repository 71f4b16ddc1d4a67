//! One HTTP/1.1 exchange: with a gateway's local door, or with the controller.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest wait for an answer: a controller waits 5 s for its switch.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer: the flows of a full switch, or a bundle.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// TLS with a server whose certificate carries its DNS name or address, and comes from one of the CAs in a file.
pub(crate) fn with_ca(path: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let file = || path.display().to_string();
    for certificate in CertificateDer::pem_file_iter(path).with_context(file)? {
        roots.add(certificate.with_context(file)?).with_context(file)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What is asked.
#[derive(Debug, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) body: Option<(&'static str, Vec<u8>)>,
    pub(crate) headers: Vec<(header::HeaderName, String)>,
    /// Longest wait for the answer; [`TIMEOUT`] where nothing is said.
    pub(crate) patience: Option<Duration>,
}

impl Server {
    /// `http://…`, or `https://…` with a TLS configuration for it.
    ///
    /// # Errors
    /// Where the text is no such URL.
    pub(crate) fn new(
        url: &str,
        tls: impl FnOnce() -> anyhow::Result<Arc<ClientConfig>>,
    ) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let authority = uri.authority().with_context(|| format!("`{url}` names no host"))?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(tls()?), 443),
            _ => bail!("`{url}` begins with neither http:// nor https://"),
        };
        let (host, port) = (authority.host().to_owned(), authority.port_u16().unwrap_or(port));
        Ok(Self { uri, host, port, tls })
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// One exchange on a connection of its own.
    ///
    /// # Errors
    /// No connection, no answer in time, or one that is too large.
    pub(crate) async fn exchange(&self, ask: Ask<'_>) -> anyhow::Result<Answer> {
        let patience = ask.patience.unwrap_or(TIMEOUT);
        tokio::time::timeout(patience, self.unlimited(ask))
            .await
            .map_err(|_elapsed| {
                anyhow::anyhow!("no answer from {} within {} s", self.place(), patience.as_secs())
            })?
            .with_context(|| format!("{} at {}", self.uri.scheme_str().unwrap_or_default(), self.place()))
    }

    async fn unlimited(&self, ask: Ask<'_>) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(self.place()).await.context("connect")?;
        let Some(tls) = &self.tls else { return self.over(stream, ask).await };
        let host = self.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).context("the host's name")?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.context("TLS")?;
        self.over(stream, ask).await
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        ask: Ask<'_>,
    ) -> anyhow::Result<Answer> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let prefix = self.uri.path().trim_end_matches('/');
        let target = format!("{prefix}{}", if ask.path.is_empty() { "/" } else { ask.path });
        let mut request = Request::builder()
            .method(ask.method)
            .uri(target)
            .header(header::HOST, self.place())
            .header(header::CONNECTION, "close");
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let body = match ask.body {
            Some((kind, body)) => {
                request = request.header(header::CONTENT_TYPE, kind);
                body
            }
            None => Vec::new(),
        };
        let request = request.body(Full::new(Bytes::from(body)))?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|source| anyhow::anyhow!("the answer: {source}"))?
            .to_bytes();
        connection.abort();
        Ok(Answer { status, headers, body })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A server that answers each connection's first request with `answer`, over TLS where `tls` is given; its port.
    async fn serve(answer: String, tls: Option<TlsAcceptor>) -> u16 {
        async fn one(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: String) {
            let mut head = vec![0; 4096];
            let _read = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => one(stream, answer.clone()).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            one(stream, answer.clone()).await;
                        }
                    }
                }
            }
        });
        port
    }

    fn plain(port: u16) -> Server {
        Server::new(&format!("http://127.0.0.1:{port}/below/"), || bail!("no TLS here")).unwrap()
    }

    /// A CA's certificate, and a server whose certificate for 127.0.0.1 comes from it.
    fn tls() -> (String, TlsAcceptor) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        (ca, TlsAcceptor::from(Arc::new(config.unwrap())))
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\nX-A: b\r\n\r\n{\"good\":true}";

    #[tokio::test]
    async fn an_answer_comes_whole() {
        let answer = plain(serve(GOOD.to_owned(), None).await).exchange(Ask::default()).await.unwrap();
        assert_eq!((answer.status, answer.json()["good"].as_bool()), (StatusCode::OK, Some(true)));
        assert_eq!(answer.headers["x-a"], "b");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error_that_names_the_server() {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "SSH-2.0-x\r\n\r\n"] {
            let port = serve(answer.to_owned(), None).await;
            let error = format!("{:#}", plain(port).exchange(Ask::default()).await.unwrap_err());
            assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
        }
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(ANSWER_BYTES_MAX + 1));
        let error = plain(serve(long, None).await).exchange(Ask::default()).await.unwrap_err();
        assert!(format!("{error:#}").contains("length limit"), "{error:#}");
    }

    /// The clock is tokio's, and jumps when nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = plain(port).exchange(Ask::default()).await.unwrap_err();
        assert!(error.to_string().contains("within 15 s"), "{error:#}");
    }

    #[tokio::test]
    async fn a_server_is_trusted_by_its_ca_and_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let (file, (ca, acceptor)) = (dir.path().join("ca.pem"), tls());
        std::fs::write(&file, &ca).unwrap();
        let port = serve(GOOD.to_owned(), Some(acceptor)).await;
        let ask = async |url: String, file: &Path| {
            Server::new(&url, || with_ca(file)).unwrap().exchange(Ask::default()).await
        };
        ask(format!("https://127.0.0.1:{port}"), &file).await.unwrap();
        let name = ask(format!("https://localhost:{port}"), &file).await.unwrap_err();
        assert!(format!("{name:#}").contains("TLS"), "{name:#}");
        let other = dir.path().join("other.pem");
        std::fs::write(&other, tls().0).unwrap();
        let stranger = ask(format!("https://127.0.0.1:{port}"), &other).await.unwrap_err();
        assert!(format!("{stranger:#}").contains("invalid peer certificate"), "{stranger:#}");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in ["", "gateway", "ftp://gateway", "http://", "//gateway"] {
            assert!(Server::new(url, || bail!("no TLS here")).is_err(), "{url}");
        }
    }
}
