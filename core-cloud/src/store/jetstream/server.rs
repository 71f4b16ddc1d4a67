//! The way to the server, and whether its word can be taken: version, how it syncs, and the stream's shape.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, Info, PersistenceMode, RetentionPolicy, StorageType, Stream};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, jetstream};
use bytes::Bytes;
use caregate_host::clock;
use caregate_protocol::record::RECORD_BYTES_MAX;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Failure, there};
use crate::store::{StoreError, failed};

/// The oldest server that can sync each message (`sync_interval: always`).
const VERSION_MIN: (u32, u32) = (2, 10);
/// The server's `max_payload` must hold the largest record with what it queues.
const PAYLOAD_BYTES_MIN: usize = RECORD_BYTES_MAX + (1 << 20);
/// Largest message that we make of a server that takes larger ones: half of a commit.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Of a message's bytes, what is left to its header.
const HEADER_BYTES: usize = 1024;
/// For a connection, and for an acknowledgement: far above a sync of a busy disk.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(250);
/// After the first server of a cluster has answered: the others are as near.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the server is and who we are there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `tls://host:port`; `nats://` on loopback alone.
    pub url: String,
    /// Certificates that sign the server's; for `tls://`.
    pub ca: Option<PathBuf>,
    /// User and password of the account in which the stream is.
    pub user: (String, String),
    /// User and password of the system account, which is asked how the servers sync.
    pub system_user: (String, String),
    /// The stream's name, and the first word of its subjects.
    pub stream: String,
    /// On how many servers it is.
    pub replicas: usize,
}

/// What [`open`] has found.
pub(super) struct Opened {
    pub(super) context: jetstream::Context,
    pub(super) stream: Stream,
    pub(super) info: Info,
    pub(super) message_bytes_max: usize,
    /// Which of the client's connections was checked.
    pub(super) connection: u64,
}

/// Connects, asks the servers how they sync, and opens or makes the stream.
pub(super) async fn open(settings: &Settings) -> Result<Opened, StoreError> {
    let client = connect(settings, &settings.user).await.map_err(failed("connect"))?;
    // Before they are asked: who comes back from here on is asked again.
    let connection = connection(&client);
    check(settings, settings.replicas).await?;
    let payload = client.server_info().max_payload;
    if payload < PAYLOAD_BYTES_MIN {
        let text = format!("max_payload is {payload}, and must be {PAYLOAD_BYTES_MIN} at least");
        return Err(failed("check the server")(text));
    }
    let context =
        jetstream::context::ContextBuilder::new().timeout(TIMEOUT).ack_timeout(TIMEOUT).build(client);
    let stream = context.get_or_create_stream(config(settings)).await.map_err(failed("open the stream"))?;
    let info = stream.get_info().await.map_err(failed("ask for the stream"))?;
    check_stream(settings, &info.config).map_err(failed("check the stream"))?;
    let message_bytes_max = MESSAGE_BYTES_MAX.min(payload) - HEADER_BYTES;
    Ok(Opened { context, stream, info, message_bytes_max, connection })
}

/// How often the client has connected so far. It is counted before anything is sent on the new connection.
pub(super) fn connection(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::SeqCst)
}

/// How many replicas acknowledge a message. After a loss more can't be asked for: one server may be what was lost.
pub(super) fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// Asks the servers how they sync, on a connection of its own. At least `wanted` must store.
///
/// # Errors
/// [`Failure::Here`] where one says that it does not sync; [`Failure::There`] where too few say anything.
pub(super) async fn check(settings: &Settings, wanted: usize) -> Result<(), Failure> {
    let system = connect(settings, &settings.system_user).await;
    check_servers(&system.map_err(there("connect to the system account"))?, wanted).await
}

async fn connect(
    settings: &Settings,
    (user, password): &(String, String),
) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let address: async_nats::ServerAddr = settings.url.parse()?;
    let mut options = ConnectOptions::with_user_and_password(user.clone(), password.clone())
        .name("caregate core")
        .connection_timeout(TIMEOUT)
        .request_timeout(Some(TIMEOUT));
    if address.tls_required() {
        let ca = settings.ca.as_ref().ok_or("tls:// needs `ca`")?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        options = options.require_tls(true).tls_client_config(tls);
    } else if !is_loopback(address.host()) {
        return Err("nats:// without TLS is for loopback alone: use tls://".into());
    }
    // At boot the server may come up later than we do.
    let deadline = clock::monotonic() + TIMEOUT;
    loop {
        match options.clone().connect(address.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) if error.kind() == ConnectErrorKind::Io && clock::monotonic() < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a server answers to `$SYS.REQ.SERVER.PING.JSZ`, as far as we ask.
#[derive(Debug, Deserialize)]
struct Answer {
    server: ServerPart,
    data: Option<DataPart>,
}

#[derive(Debug, Deserialize)]
struct ServerPart {
    name: String,
    ver: String,
}

#[derive(Debug, Deserialize)]
struct DataPart {
    #[serde(default)]
    disabled: bool,
    config: Option<ConfigPart>,
}

#[derive(Debug, Deserialize)]
struct ConfigPart {
    #[serde(default)]
    sync_always: bool,
}

/// Every server that may hold the stream must say that it syncs each message.
async fn check_servers(system: &Client, wanted: usize) -> Result<(), Failure> {
    let doing = "ask the servers how they sync";
    let inbox = system.new_inbox();
    let mut subscription = system.subscribe(inbox.clone()).await.map_err(there(doing))?;
    let ask = Bytes::from_static(br#"{"config":true}"#);
    system.publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, ask).await.map_err(there(doing))?;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let reading = async move {
        use futures_util::StreamExt;
        while let Some(message) = subscription.next().await {
            if sender.send(message.payload).is_err() {
                break;
            }
        }
    };
    let judging = async {
        let (mut storing, mut timeout) = (0, TIMEOUT);
        while let Ok(Some(payload)) = tokio::time::timeout(timeout, answers.recv()).await {
            storing += usize::from(judge(&payload).map_err(failed("check the server"))?);
            timeout = OTHERS_TIMEOUT;
        }
        enough(storing, wanted).map_err(there("check the server"))
    };
    tokio::select! {
        () = reading => Err(there(doing)("the connection ended")),
        judged = judging => judged,
    }
}

/// Whether so many servers that store and sync are as many as must be.
fn enough(storing: usize, wanted: usize) -> Result<(), String> {
    match storing {
        0 => Err(
            "no server with JetStream reports how it syncs: is the system user one of the system account?"
                .to_owned(),
        ),
        _ if storing < wanted => {
            Err(format!("servers with JetStream that report how they sync: {storing}, of {wanted} at least"))
        }
        _ => Ok(()),
    }
}

/// Whether this server stores. Nothing is said where nobody may answer.
fn judge(payload: &[u8]) -> Result<bool, String> {
    if payload.is_empty() {
        return Ok(false);
    }
    let answer: Answer = serde_json::from_slice(payload).map_err(|error| format!("its answer: {error}"))?;
    let ServerPart { name, ver } = &answer.server;
    let Some(data) = answer.data else { return Ok(false) };
    if data.disabled {
        return Ok(false);
    }
    let mut numbers = ver.split('.').map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < VERSION_MIN {
        let (major, minor) = VERSION_MIN;
        return Err(format!(
            "server {name} is {ver}; {major}.{minor} or newer is needed, since older ones can't sync each message"
        ));
    }
    match data.config {
        Some(ConfigPart { sync_always: true }) => Ok(true),
        Some(_) | None => Err(format!(
            "server {name} does not report `sync_interval: always` (jetstream {{ … }}): its acknowledgement would not be durable"
        )),
    }
}

fn config(settings: &Settings) -> Config {
    Config {
        name: settings.stream.clone(),
        subjects: vec![format!("{}.>", settings.stream)],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        num_replicas: settings.replicas,
        // Never looked for: each message names what it follows.
        duplicate_window: Duration::from_secs(1),
        allow_direct: true,
        description: Some("Caregate core: sealed records".to_owned()),
        ..Config::default()
    }
}

/// A stream that was made by somebody else must keep what it takes.
fn check_stream(settings: &Settings, found: &Config) -> Result<(), String> {
    let unlimited = |limit: i64| limit <= 0;
    let wrong = [
        (found.storage != StorageType::File, "is not kept in files"),
        (found.retention != RetentionPolicy::Limits, "drops what was read"),
        (found.no_ack, "does not acknowledge"),
        (found.persist_mode == Some(PersistenceMode::Async), "acknowledges before it stores"),
        (!found.max_age.is_zero(), "has a max_age: retention is the core's"),
        (
            !unlimited(found.max_bytes) || !unlimited(found.max_messages),
            "has a limit, and drops what is beyond it",
        ),
        (!unlimited(found.max_messages_per_subject), "has a limit for each subject"),
        (found.num_replicas < settings.replicas, "has fewer replicas than configured"),
        (found.subjects != [format!("{}.>", settings.stream)], "has other subjects"),
    ];
    match wrong.iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => Err(format!("stream {} {what}", settings.stream)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ver: &str, data: &str) -> Result<bool, String> {
        judge(format!(r#"{{"server":{{"name":"a","ver":"{ver}"}},"data":{data}}}"#).as_bytes())
    }

    #[test]
    fn a_server_is_taken_that_syncs_each_message_and_says_so() {
        let always = r#"{"config":{"sync_always":true,"sync_interval":1}}"#;
        assert_eq!(judged("2.15.1", always), Ok(true));
        assert_eq!(judged("2.10.0", always), Ok(true));
        assert_eq!(judged("3.0.0", always), Ok(true));
        assert_eq!(judged("2.15.1", r#"{"disabled":true}"#), Ok(false), "it stores nothing");
        for (ver, data, says) in [
            ("2.9.25", always, "2.10 or newer"),
            ("", always, "2.10 or newer"),
            ("2.15.1", r#"{"config":{"sync_interval":120000000000}}"#, "sync_interval: always"),
            ("2.15.1", r#"{"config":{"sync_always":false}}"#, "sync_interval: always"),
            ("2.15.1", "{}", "sync_interval: always"),
        ] {
            let error = judged(ver, data).unwrap_err();
            assert!(error.contains(says) && error.contains("server a"), "{error}");
        }
        assert_eq!(judge(b""), Ok(false), "nobody may answer");
        assert!(judge(b"[]").unwrap_err().starts_with("its answer"));
    }

    #[test]
    fn as_many_servers_must_store_as_the_stream_has_replicas() {
        assert!(enough(0, 1).unwrap_err().contains("system account"));
        assert!(enough(1, 3).unwrap_err().ends_with("1, of 3 at least"));
        assert_eq!([enough(1, 1), enough(3, 3), enough(5, 3)], [Ok(()), Ok(()), Ok(())]);
        assert_eq!([1, 3, 5].map(majority), [1, 2, 3], "after a loss");
    }

    #[test]
    fn a_stream_that_acknowledges_before_it_stores_is_refused() {
        let settings = Settings {
            url: String::new(),
            ca: None,
            user: <_>::default(),
            system_user: <_>::default(),
            stream: "S".into(),
            replicas: 1,
        };
        let with = |persist_mode| check_stream(&settings, &Config { persist_mode, ..config(&settings) });
        assert_eq!([with(None), with(Some(PersistenceMode::Default))], [Ok(()), Ok(())]);
        assert_eq!(with(Some(PersistenceMode::Async)), Err("stream S acknowledges before it stores".into()));
    }

    #[test]
    fn only_loopback_does_without_tls() {
        assert!(["localhost", "127.0.0.1", "[::1]", "::1"].iter().all(|host| is_loopback(host)));
        assert!(
            !["10.0.0.1", "nats.example", "0.0.0.0", "localhost.example"]
                .iter()
                .any(|host| is_loopback(host))
        );
    }
}
