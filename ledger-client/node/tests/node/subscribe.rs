//! `eth_subscribe` over a WebSocket: the same client and the same expectations against the embedded node and against anvil.

use std::net::{SocketAddr, TcpStream};

use alloy_primitives::{Address, Bytes};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::support::ledger::{Ledger, address, key, key_call};
use crate::support::process::{Process, Site, anvil, free_port};
use crate::support::{PATIENCE, Rpc, number};

struct Socket {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    told: Vec<Value>,
}

impl Socket {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = client(format!("ws://{to}/"), stream).unwrap();
        Self { socket, last_id: 0, told: Vec::new() }
    }

    fn next(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// A call's answer. What is told meanwhile is kept.
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let call = json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params });
        self.socket.send(Message::text(call.to_string())).unwrap();
        loop {
            let message = self.next();
            if message["id"] == self.last_id {
                return message;
            }
            self.told.push(message);
        }
    }

    fn subscribe(&mut self, params: &Value) -> Value {
        let answer = self.ask("eth_subscribe", params);
        assert!(answer["result"].is_string(), "{answer}");
        answer["result"].clone()
    }

    /// What a subscription is told next.
    fn told(&mut self, subscription: &Value) -> Value {
        let is_of = |message: &Value| message["params"]["subscription"] == *subscription;
        let message = match self.told.iter().position(is_of) {
            Some(at) => self.told.remove(at),
            None => loop {
                let message = self.next();
                if is_of(&message) {
                    break message;
                }
                self.told.push(message);
            },
        };
        assert_eq!(message["method"], "eth_subscription");
        message["params"]["result"].clone()
    }
}

fn heads_and_events_are_told(ledger: &Ledger) {
    let mut socket = Socket::connect(ledger.rpc.0);
    let heads = socket.subscribe(&json!(["newHeads"]));
    let events = socket.subscribe(&json!(["logs", { "address": ledger.contract }]));
    let elsewhere = socket.subscribe(&json!(["logs", { "address": Address::repeat_byte(9) }]));
    let receipts: Vec<_> =
        (0..3).map(|nth| ledger.send(&ledger.relay, key_call(&ledger.domain(), 70 + nth, 1))).collect();
    for receipt in &receipts {
        assert!(receipt.success());
        let event = socket.told(&events);
        for field in ["address", "topics", "data", "blockNumber", "blockHash", "transactionHash", "logIndex"]
        {
            assert_eq!(event[field], receipt.0["logs"][0][field], "{field}");
        }
        // Idle blocks may come between.
        let head = loop {
            let head = socket.told(&heads);
            if number(&head["number"]) >= receipt.block() {
                break head;
            }
        };
        let block = ledger.rpc.ask("eth_getBlockByNumber", json!([head["number"], false]));
        for field in ["number", "hash", "parentHash", "stateRoot", "extraData", "timestamp", "logsBloom"] {
            assert_eq!(head[field], block[field], "{field}");
        }
    }
    // Anything else may be asked there, too.
    assert_eq!(socket.ask("eth_chainId", &json!([]))["result"], ledger.rpc.ask("eth_chainId", json!([])));
    assert_eq!(socket.ask("eth_unsubscribe", &json!([events]))["result"], true);
    assert_eq!(socket.ask("eth_subscribe", &json!(["weather"]))["result"], Value::Null);
    let last = ledger.send(&ledger.relay, key_call(&ledger.domain(), 80, 1));
    while number(&socket.told(&heads)["number"]) < last.block() {}
    let left = |of: &Value| socket.told.iter().any(|message| message["params"]["subscription"] == *of);
    assert!(!left(&events) && !left(&elsewhere), "{:?}", socket.told);
}

fn embedded() -> (Site, Process, Ledger) {
    let site = Site::new(&address(&key(1)).to_string());
    let node = site.start();
    let contract = site.deployment()["contract"].as_str().unwrap().parse().unwrap();
    let ledger = Ledger { rpc: Rpc(site.rpc), contract, chain_id: 4711, governor: key(1), relay: key(2) };
    (site, node, ledger)
}

#[test]
fn by_the_embedded_node() {
    let (_site, _node, ledger) = embedded();
    heads_and_events_are_told(&ledger);
}

/// The one at the start of a node is a round of its own; those after it are the thread's. In twice ten seconds there are two of these.
#[test]
fn an_idle_node_goes_on_sealing() {
    let (_site, _node, ledger) = embedded();
    let mut socket = Socket::connect(ledger.rpc.0);
    let heads = socket.subscribe(&json!(["newHeads"]));
    // Told as well, for one asked for may come after the next, which then is told as new.
    let mut before = socket.told(&heads);
    for _ in 0..2 {
        let head = socket.told(&heads);
        let apart = |field: &str| number(&head[field]) - number(&before[field]);
        assert_eq!(apart("number"), 1);
        assert!((1..=10).contains(&apart("timestamp")), "{} s after the block before", apart("timestamp"));
        before = head;
    }
}

#[test]
fn by_anvil() {
    let (_anvil, rpc) = anvil(free_port());
    let ledger = Ledger::deploy(rpc, 31337, key(1), key(2));
    heads_and_events_are_told(&ledger);
}

#[test]
fn bounds_and_strangers() {
    let (site, node, ledger) = embedded();
    let mut socket = Socket::connect(site.rpc);
    for _ in 0..ledger_node::rpc::SUBSCRIPTIONS_MAX {
        socket.subscribe(&json!(["newHeads"]));
    }
    assert_eq!(socket.ask("eth_subscribe", &json!(["newHeads"]))["error"]["code"], -32005);
    assert_eq!(socket.ask("eth_unsubscribe", &json!(["0xffff"]))["result"], false);
    // By POST there is nobody to tell.
    let error = ledger.rpc.error("eth_subscribe", json!(["newHeads"]));
    assert!(error["message"].as_str().unwrap().contains("WebSocket"), "{error}");
    // A page in a browser, which names itself.
    let mut request = format!("ws://{}/", site.rpc).into_client_request().unwrap();
    request.headers_mut().insert("Origin", "https://evil.example".parse().unwrap());
    assert!(client(request, TcpStream::connect(site.rpc).unwrap()).is_err());
    // Bytes that are no text end the connection, and no other.
    let mut other = Socket::connect(site.rpc);
    other.socket.send(Message::binary(Bytes::from_static(b"\x00\x01").to_vec())).unwrap();
    while other.socket.read().is_ok() {}
    assert_eq!(socket.ask("eth_chainId", &json!([]))["result"], "0x1267");
    // It ends with the node, and the client sees it.
    drop(node);
    while socket.socket.read().is_ok() {}
}
