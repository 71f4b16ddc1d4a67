//! Nodes that answer what they should not: each is an error with a name, none a panic, a hang or unbounded memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ledger_chain::{Chain, ChainConfig, ChainError, Follower, Status};
use ledger_client::verify::Address;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long any one condition may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node does with one request.
#[derive(Debug, Clone)]
enum Answer {
    /// These bytes, as they are.
    Raw(Vec<u8>),
    /// A result or an error, as JSON-RPC.
    Json(String),
    /// As `Json`, and then it closes the connection.
    JsonAndClose(String),
    /// Nothing, for ever.
    Silence,
    /// It closes the connection.
    Close,
}

/// A node that answers by a rule; the number of connections that it took.
async fn node(rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Chain, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = format!("http://{}", listener.local_addr().unwrap());
    let (rule, taken) = (Arc::new(rule), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let rule = Arc::clone(&rule);
            tokio::spawn(async move { drop(serve(stream, &*rule).await) });
        }
    });
    let config = ChainConfig {
        poll_ms: 20,
        request_timeout_ms: 300,
        ..ChainConfig::new(&rpc, 4711, Address([0xc0; 20]))
    };
    (Chain::new(config).unwrap(), taken)
}

async fn serve(stream: TcpStream, rule: &(impl Fn(&str) -> Answer + ?Sized)) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body).unwrap();
        let id = body.split("\"id\":").nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
        let json = |content: &str| {
            let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{content}}}");
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        match rule(&body) {
            Answer::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                return Ok(());
            }
            Answer::Json(content) => stream.write_all(&json(&content)).await?,
            Answer::JsonAndClose(content) => {
                stream.write_all(&json(&content)).await?;
                return Ok(());
            }
            Answer::Silence => std::future::pending().await,
            Answer::Close => return Ok(()),
        }
    }
}

fn http(status: &str, body: &str) -> Answer {
    Answer::Raw(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[tokio::test]
async fn each_wrong_answer_has_its_name() {
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(ledger_chain::ANSWER_BYTES_MAX + 1));
    let shouting = format!("\"error\":{{\"code\":-32000,\"message\":\"{}\"}}", "x".repeat(5_000));
    let cases = [
        (Answer::Close, "unreachable"),
        (Answer::Silence, "unreachable"),
        (Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "unreachable"),
        (Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"js".to_vec()), "unreachable"),
        (http("502 Bad Gateway", "<html>"), "unreachable"),
        (Answer::Raw(long.into_bytes()), "too_large"),
        (http("200 OK", ""), "malformed"),
        (http("200 OK", "[]"), "malformed"),
        (http("200 OK", "{\"jsonrpc\":\"2.0\"}"), "malformed"),
        (Answer::Json("\"result\":\"yes\"".into()), "malformed"),
        (Answer::Json("\"result\":null".into()), "malformed"),
        (Answer::Json("\"result\":\"0x1ffffffffffffffffff\"".into()), "malformed"),
        (Answer::Json(shouting), "rpc"),
        (
            Answer::Json("\"error\":{\"code\":3,\"message\":\"execution reverted\",\"data\":\"0x\"}".into()),
            "refused",
        ),
    ];
    for (answer, reason) in cases {
        let shown = format!("{answer:?}").chars().take(80).collect::<String>();
        let (chain, _) = node(move |_| answer.clone()).await;
        let error = chain.chain_id().await.unwrap_err();
        assert_eq!(error.reason(), reason, "{shown}: {error}");
        assert!(error.to_string().len() < 400, "{shown}: {error}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_made_again() {
    let result = "\"result\":\"0x1267\"".to_owned();
    let kept = result.clone();
    let (chain, taken) = node(move |_| Answer::Json(kept.clone())).await;
    for _ in 0..5 {
        assert_eq!(chain.chain_id().await, Ok(4711));
    }
    assert_eq!(taken.load(Ordering::Relaxed), 1);
    let (chain, taken) = node(move |_| Answer::JsonAndClose(result.clone())).await;
    for _ in 0..5 {
        assert_eq!(chain.chain_id().await, Ok(4711));
    }
    assert_eq!(taken.load(Ordering::Relaxed), 5);
}

/// A block with this number; its header hashes to nothing that it says.
fn block(number: u64) -> String {
    let zero = |bytes: usize| format!("\"0x{}\"", "00".repeat(bytes));
    format!(
        "\"result\":{{\"hash\":\"0x{}\",\"parentHash\":{p},\"sha3Uncles\":{p},\"miner\":{m},\"stateRoot\":{p},\
         \"transactionsRoot\":{p},\"receiptsRoot\":{p},\"logsBloom\":{bloom},\"difficulty\":\"0x1\",\"number\":\"{number:#x}\",\
         \"gasLimit\":\"0x1\",\"gasUsed\":\"0x0\",\"timestamp\":\"0x1\",\"extraData\":\"0x\",\"mixHash\":{p},\"nonce\":{n}}}",
        "11".repeat(32),
        p = zero(32),
        m = zero(20),
        bloom = zero(256),
        n = zero(8),
    )
}

fn follow(chain: Chain) -> (Arc<Follower>, CancellationToken) {
    let stop = CancellationToken::new();
    (Follower::start(chain, stop.clone()), stop)
}

#[tokio::test]
async fn a_node_that_contradicts_itself_makes_no_bundle() {
    let (chain, _) = node(|asked| {
        Answer::Json(match asked {
            _ if asked.contains("eth_chainId") => "\"result\":\"0x1267\"".to_owned(),
            _ if asked.contains("eth_getCode") => "\"result\":\"0x60\"".to_owned(),
            _ if asked.contains("eth_getBlockByNumber") => block(7),
            _ if asked.contains("eth_getLogs") => "\"result\":[]".to_owned(),
            _ => format!(
                "\"result\":{{\"address\":\"0x{}\",\"balance\":\"0x0\",\"codeHash\":\"0x{z}\",\"nonce\":\"0x0\",\
                 \"storageHash\":\"0x{z}\",\"accountProof\":[],\"storageProof\":[{{\"key\":\"0x0\",\"value\":\"0x5\",\"proof\":[]}}]}}",
                "c0".repeat(20),
                z = "00".repeat(32),
            ),
        })
    })
    .await;
    let (follower, _stop) = follow(chain);
    let mut heads = follower.heads();
    tokio::time::timeout(PATIENCE, heads.wait_for(Option::is_some)).await.unwrap().unwrap();
    let bundle = follower.bundle(&caregate_protocol::policy::Watch::default()).await;
    assert_eq!(bundle, Err(ChainError::HeaderHash { number: 7 }));
}

#[tokio::test]
async fn events_that_are_none_keep_the_follower_down_and_say_why() {
    let (chain, _) = node(|asked| {
        Answer::Json(match asked {
            _ if asked.contains("eth_chainId") => "\"result\":\"0x1267\"".to_owned(),
            _ if asked.contains("eth_getCode") => "\"result\":\"0x60\"".to_owned(),
            _ if asked.contains("eth_getBlockByNumber") => block(7),
            _ => format!(
                "\"result\":[{{\"address\":\"0x{}\",\"topics\":[\"0x{}\"],\"data\":\"0x\",\"blockNumber\":\"0x1\",\
                 \"logIndex\":\"0x0\",\"transactionHash\":\"0x{t}\",\"blockHash\":\"0x{t}\",\"transactionIndex\":\"0x0\"}}]",
                "c0".repeat(20),
                "22".repeat(32),
                t = "33".repeat(32),
            ),
        })
    })
    .await;
    let (follower, _stop) = follow(chain);
    let mut status = follower.status();
    let down = status.wait_for(|status| {
        matches!(status, Status::Down(ChainError::Malformed { method: "eth_getLogs", .. }))
    });
    tokio::time::timeout(PATIENCE, down).await.unwrap().unwrap();
    let bundle = follower.bundle(&caregate_protocol::policy::Watch::default()).await;
    assert!(matches!(bundle, Err(ChainError::CatchingUp { .. })), "{bundle:?}");
}

#[tokio::test]
async fn a_follower_that_is_stopped_ends() {
    let (chain, taken) = node(|_| Answer::Silence).await;
    let (follower, stop) = follow(chain);
    stop.cancel();
    let released = async {
        while Arc::strong_count(&follower) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, released).await.unwrap();
    assert!(taken.load(Ordering::Relaxed) <= 1);
    assert_eq!(*follower.status().borrow(), Status::Starting);
}
