//! Nodes that answer what they should not: each is an error with a name, none a panic, a hang or unbounded memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    block_of(number, 0x11)
}

/// The same of one of several chains: each block's id is `chain`, 32 times.
fn block_of(number: u64, chain: u8) -> String {
    let zero = |bytes: usize| format!("\"0x{}\"", "00".repeat(bytes));
    format!(
        "\"result\":{{\"hash\":\"0x{}\",\"parentHash\":{p},\"sha3Uncles\":{p},\"miner\":{m},\"stateRoot\":{p},\
         \"transactionsRoot\":{p},\"receiptsRoot\":{p},\"logsBloom\":{bloom},\"difficulty\":\"0x1\",\"number\":\"{number:#x}\",\
         \"gasLimit\":\"0x1\",\"gasUsed\":\"0x0\",\"timestamp\":\"0x1\",\"extraData\":\"0x\",\"mixHash\":{p},\"nonce\":{n}}}",
        format!("{chain:02x}").repeat(32),
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

/// One slot's proof, of nothing.
fn proof() -> String {
    format!(
        "\"result\":{{\"address\":\"0x{}\",\"balance\":\"0x0\",\"codeHash\":\"0x{z}\",\"nonce\":\"0x0\",\
         \"storageHash\":\"0x{z}\",\"accountProof\":[],\"storageProof\":[{{\"key\":\"0x0\",\"value\":\"0x5\",\"proof\":[]}}]}}",
        "c0".repeat(20),
        z = "00".repeat(32),
    )
}

#[tokio::test]
async fn a_node_that_contradicts_itself_makes_no_bundle() {
    let (chain, _) = node(|asked| {
        Answer::Json(match asked {
            _ if asked.contains("eth_chainId") => "\"result\":\"0x1267\"".to_owned(),
            _ if asked.contains("eth_getCode") => "\"result\":\"0x60\"".to_owned(),
            _ if asked.contains("eth_getBlockByNumber") => block(7),
            _ if asked.contains("eth_getLogs") => "\"result\":[]".to_owned(),
            _ => proof(),
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

/// The number behind `key` in a request.
fn number_in(asked: &str, key: &str) -> Option<u64> {
    let digits = asked.split_once(key)?.1.strip_prefix("0x")?;
    u64::from_str_radix(digits.split('"').next()?, 16).ok()
}

/// A node of two chains. The first has 12,000 blocks, and a participant in its seventh; from the question that contains `turns` on there is the
/// other, of `length` blocks and without an event. Of the questions that contain `fails` the first is not answered.
#[derive(Debug)]
struct TwoChains {
    turns: &'static str,
    fails: &'static str,
    length: u64,
    has_turned: AtomicBool,
    has_failed: AtomicBool,
    /// How often the participant was told.
    told: AtomicUsize,
}

impl TwoChains {
    fn new(turns: &'static str, fails: &'static str, length: u64) -> Arc<Self> {
        let (has_turned, has_failed, told) = Default::default();
        Arc::new(Self { turns, fails, length, has_turned, has_failed, told })
    }

    fn answer(&self, asked: &str) -> Answer {
        let turned = self.has_turned.fetch_or(asked.contains(self.turns), Ordering::SeqCst)
            || asked.contains(self.turns);
        if asked.contains(self.fails) && !self.has_failed.swap(true, Ordering::SeqCst) {
            return Answer::Close;
        }
        let (chain, latest) = if turned { (0x22, self.length) } else { (0x11, 12_000) };
        Answer::Json(match asked {
            _ if asked.contains("eth_chainId") => "\"result\":\"0x1267\"".to_owned(),
            _ if asked.contains("eth_getCode") => "\"result\":\"0x60\"".to_owned(),
            _ if asked.contains("eth_getBlockByNumber") => {
                match number_in(asked, "\"params\":[\"").unwrap_or(latest) {
                    number if number > latest => "\"result\":null".to_owned(),
                    number => block_of(number, chain),
                }
            }
            _ if asked.contains("eth_getProof") => proof(),
            _ if !turned && number_in(asked, "\"fromBlock\":\"") == Some(0) => {
                self.told.fetch_add(1, Ordering::SeqCst);
                participant_set()
            }
            _ => "\"result\":[]".to_owned(),
        })
    }
}

/// Events: a participant, in block 7.
fn participant_set() -> String {
    let topic = alloy::primitives::keccak256("ParticipantSet(address,uint8,uint8,bool)");
    format!(
        "\"result\":[{{\"address\":\"0x{}\",\"topics\":[\"{topic}\",\"0x{}{}\"],\"data\":\"0x{:064x}{:064x}{:064x}\",\"blockNumber\":\"0x7\",\
         \"logIndex\":\"0x0\",\"transactionHash\":\"0x{t}\",\"blockHash\":\"0x{t}\",\"transactionIndex\":\"0x0\"}}]",
        "c0".repeat(20),
        "00".repeat(12),
        "0a".repeat(20),
        1,
        1,
        0,
        t = "33".repeat(32),
    )
}

async fn followed(node_of: &Arc<TwoChains>) -> (Arc<Follower>, CancellationToken) {
    let rule = Arc::clone(node_of);
    let (chain, _) = node(move |asked| rule.answer(asked)).await;
    let (follower, stop) = follow(chain);
    let mut heads = follower.heads();
    let until = heads.wait_for(|head| head.is_some_and(|head| head.number == node_of.length));
    tokio::time::timeout(PATIENCE, until).await.unwrap().unwrap();
    (follower, stop)
}

#[tokio::test]
async fn of_a_chain_that_another_took_the_place_of_in_the_middle_of_a_long_way_nothing_stays() {
    // At the second span's events; and, with the last span's unanswered, at the block with which the second ends.
    let second = ("\"fromBlock\":\"0x1388\"", "\"fromBlock\":\"0x1388\"");
    let between = ("\"params\":[\"0x270f\"", "\"fromBlock\":\"0x2710\"");
    for ((turns, fails), length) in [(second, 3), (second, 12_000), (second, 20_000), (between, 12_000)] {
        let node = TwoChains::new(turns, fails, length);
        let (follower, _stop) = followed(&node).await;
        let participants = follower.with_index(|index| index.participants().count());
        assert_eq!((node.told.load(Ordering::SeqCst), participants), (1, 0), "{turns} {length}");
        if length == 3 {
            let bundle = follower.bundle(&caregate_protocol::policy::Watch::default()).await;
            assert_eq!(bundle, Err(ChainError::HeaderHash { number: 3 }), "it is complete up to there");
        }
    }
}

#[tokio::test]
async fn what_was_read_of_a_long_way_is_not_read_again() {
    let node = TwoChains::new("never", "\"fromBlock\":\"0x1388\"", 12_000);
    let (follower, _stop) = followed(&node).await;
    let participants = follower.with_index(|index| index.participants().count());
    assert_eq!((node.told.load(Ordering::SeqCst), participants), (1, 1));
    assert!(node.has_failed.load(Ordering::SeqCst));
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
