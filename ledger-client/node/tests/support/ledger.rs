//! The contract on a ledger, and keys to sign for it. What is signed comes from `ledger-client`, not from the contract's own ABI, so
//! the two are held against each other by each call that is accepted.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEnvelope, TxLegacy};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use alloy_sol_types::{SolCall, SolError, SolEvent, sol};
use caregate_protocol::id::RecipientId;
use k256::ecdsa::SigningKey;
use ledger_client::verify::{self, Domain, participant_key_digest, rlp};
use ledger_node::contract::{Artifact, Council};
use serde_json::{Value, json};

use super::{Rpc, bytes, number, until};

sol!(
    #[sol(all_derives)]
    Caregate,
    "../contracts/Caregate.json"
);

/// Enough for any call of the contract.
pub const GAS: u64 = 500_000;

/// A secp256k1 key by a number.
pub fn key(number: u64) -> SigningKey {
    SigningKey::from_slice(keccak256(number.to_be_bytes()).as_slice()).unwrap()
}

/// A key's address.
pub fn address(key: &SigningKey) -> Address {
    let point = key.verifying_key().to_sec1_point(false);
    Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..])
}

/// r, s and whether y is odd.
fn recoverable(key: &SigningKey, digest: &[u8; 32]) -> ([u8; 64], bool) {
    let (rs, recovery) = key.sign_prehash_recoverable(digest);
    (rs.to_bytes().into(), recovery.is_y_odd())
}

/// A signature in the contract's form.
pub fn sign(key: &SigningKey, digest: &[u8; 32]) -> Bytes {
    let (rs, odd) = recoverable(key, digest);
    [rs.as_slice(), &[27 + u8::from(odd)]].concat().into()
}

/// Signs a transaction.
pub fn signed<T: SignableTransaction<Signature>>(tx: T, key: &SigningKey) -> Vec<u8>
where
    TxEnvelope: From<alloy_consensus::Signed<T>>,
{
    let (rs, odd) = recoverable(key, &tx.signature_hash().0);
    let (r, s) = (U256::from_be_slice(&rs[..32]), U256::from_be_slice(&rs[32..]));
    TxEnvelope::from(tx.into_signed(Signature::new(r, s, odd))).encoded_2718()
}

/// A receipt.
#[derive(Debug, Clone)]
pub struct Receipt(pub Value);

impl Receipt {
    pub fn success(&self) -> bool {
        number(&self.0["status"]) == 1
    }

    /// The only event of this kind.
    pub fn event<E: SolEvent>(&self) -> E {
        let is_one = |log: &&Value| bytes(&log["topics"][0]) == E::SIGNATURE_HASH.0;
        let logs: Vec<_> = self.0["logs"].as_array().unwrap().iter().filter(is_one).collect();
        assert_eq!(logs.len(), 1, "{}", self.0);
        let topics =
            logs[0]["topics"].as_array().unwrap().iter().map(|topic| B256::from_slice(&bytes(topic)));
        E::decode_raw_log(topics, &bytes(&logs[0]["data"])).unwrap()
    }

    pub fn block(&self) -> u64 {
        number(&self.0["blockNumber"])
    }
}

/// Governors of a contract.
pub fn council(governors: &[&SigningKey], threshold: u8, delay_s: u64) -> Council {
    Council { governors: governors.iter().map(|key| address(key)).collect(), threshold, delay_s }
}

/// Data of a call that anybody may send and that changes something: participant `number` sets its HPKE key.
pub fn key_call(domain: &Domain, number: u64, version: u64) -> Vec<u8> {
    let participant = key(number);
    let id = RecipientId(address(&participant).into_array());
    let signature = sign(&participant, &participant_key_digest(&id, &[7; 32], version, domain));
    let k =
        ICaregate::ParticipantKey { participant: address(&participant), hpkeKey: [7; 32].into(), version };
    Caregate::setParticipantKeyCall { k, signature }.abi_encode()
}

/// The contract on a ledger.
pub struct Ledger {
    pub rpc: Rpc,
    pub contract: Address,
    pub chain_id: u64,
    pub governor: SigningKey,
    /// Relays what others signed. It has neither ether nor a role.
    pub relay: SigningKey,
}

impl Ledger {
    pub fn domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, verifying_contract: verify::Address(self.contract.into_array()) }
    }

    /// Deploys the contract by a transaction, as on a chain that others run.
    pub fn deploy(rpc: Rpc, chain_id: u64, governor: SigningKey, relay: SigningKey) -> Self {
        let code = Artifact::embedded().unwrap().creation(&council(&[&governor], 1, 0));
        let nonce = rpc.number("eth_getTransactionCount", json!([address(&relay), "latest"]));
        let tx = TxLegacy {
            chain_id: Some(chain_id),
            nonce,
            gas_limit: 8_000_000,
            to: TxKind::Create,
            input: code,
            ..TxLegacy::default()
        };
        let hash = rpc.ask("eth_sendRawTransaction", json!([Bytes::from(signed(tx, &relay))]));
        let receipt = receipt(&rpc, &hash);
        assert!(receipt.success(), "{}", receipt.0);
        let contract = Address::from_slice(&bytes(&receipt.0["contractAddress"]));
        Self { rpc, contract, chain_id, governor, relay }
    }

    pub fn nonce(&self, key: &SigningKey) -> u64 {
        self.rpc.number("eth_getTransactionCount", json!([address(key), "latest"]))
    }

    pub fn legacy(&self, nonce: u64, data: Vec<u8>) -> TxLegacy {
        TxLegacy {
            chain_id: Some(self.chain_id),
            nonce,
            gas_limit: GAS,
            to: TxKind::Call(self.contract),
            input: data.into(),
            ..TxLegacy::default()
        }
    }

    pub fn eip2930(&self, nonce: u64, data: Vec<u8>) -> TxEip2930 {
        TxEip2930 {
            chain_id: self.chain_id,
            nonce,
            gas_limit: GAS,
            to: TxKind::Call(self.contract),
            input: data.into(),
            ..TxEip2930::default()
        }
    }

    pub fn eip1559(&self, nonce: u64, data: Vec<u8>) -> TxEip1559 {
        TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit: GAS,
            to: TxKind::Call(self.contract),
            input: data.into(),
            ..TxEip1559::default()
        }
    }

    /// Sends what a key signed and gives the receipt.
    pub fn send(&self, key: &SigningKey, data: Vec<u8>) -> Receipt {
        let raw = signed(self.legacy(self.nonce(key), data), key);
        let hash = self.rpc.ask("eth_sendRawTransaction", json!([Bytes::from(raw)]));
        receipt(&self.rpc, &hash)
    }

    /// Relays a call that is accepted: one event, and the epoch is one higher.
    pub fn accepted<E: SolEvent>(&self, key: &SigningKey, call: impl SolCall) -> E {
        let before = self.epoch();
        let receipt = self.send(key, call.abi_encode());
        assert!(receipt.success(), "{}", receipt.0);
        assert_eq!(self.epoch(), before + 1);
        assert_eq!(Address::from_slice(&bytes(&receipt.0["logs"][0]["address"])), self.contract);
        receipt.event()
    }

    /// Relays a call that is refused with this error, as an answer to `eth_call` and as a transaction, and changes nothing.
    pub fn refused<E: SolError>(&self, key: &SigningKey, call: impl SolCall) -> E {
        let data = call.abi_encode();
        let request = json!({ "from": address(key), "to": self.contract, "data": Bytes::from(data.clone()) });
        let error = self.rpc.error("eth_call", json!([request, "latest"]));
        assert_eq!(error["code"], 3, "{error}");
        let decoded =
            E::abi_decode(&bytes(&error["data"])).unwrap_or_else(|_| panic!("another error: {error}"));
        let root = self.rpc.ask("eth_getProof", json!([self.contract, [], "latest"]))["storageHash"].clone();
        let receipt = self.send(key, data);
        assert!(!receipt.success() && receipt.0["logs"] == json!([]), "{}", receipt.0);
        assert_eq!(self.rpc.ask("eth_getProof", json!([self.contract, [], "latest"]))["storageHash"], root);
        decoded
    }

    /// A view.
    pub fn view<C: SolCall>(&self, call: C) -> C::Return {
        let request = json!({ "to": self.contract, "data": Bytes::from(call.abi_encode()) });
        C::abi_decode_returns(&bytes(&self.rpc.ask("eth_call", json!([request, "latest"])))).unwrap()
    }

    pub fn epoch(&self) -> u64 {
        self.view(Caregate::epochCall {})
    }

    /// A storage word.
    pub fn word(&self, slot: &[u8; 32]) -> [u8; 32] {
        let word = self.rpc.ask("eth_getStorageAt", json!([self.contract, B256::from(*slot), "latest"]));
        bytes(&word).try_into().unwrap()
    }

    /// The newest block's time.
    pub fn now_s(&self) -> u64 {
        number(&self.rpc.ask("eth_getBlockByNumber", json!(["latest", false]))["timestamp"])
    }
}

/// A header's RLP from an answer, as any client of Ethereum would make it again.
pub fn header_rlp(block: &Value) -> Vec<u8> {
    let mut payload = Vec::new();
    for field in
        ["parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom"]
    {
        rlp::put_bytes(&mut payload, &bytes(&block[field]));
    }
    for field in ["difficulty", "number", "gasLimit", "gasUsed", "timestamp"] {
        rlp::put_number(&mut payload, number(&block[field]));
    }
    for field in ["extraData", "mixHash", "nonce"] {
        rlp::put_bytes(&mut payload, &bytes(&block[field]));
    }
    rlp::put_number(&mut payload, number(&block["baseFeePerGas"]));
    let mut out = Vec::new();
    rlp::put_list(&mut out, &payload);
    out
}

/// A transaction's receipt, once there is one.
pub fn receipt(rpc: &Rpc, hash: &Value) -> Receipt {
    Receipt(until("the receipt", || {
        Some(rpc.ask("eth_getTransactionReceipt", json!([hash]))).filter(|receipt| !receipt.is_null())
    }))
}
