//! Wraps, sealed segments and keys of the epoch tree against other implementations: Python's `cryptography` and npm's `@hpke/core`, each
//! way round. `cargo xtask interop --keys` installs both under `target/interop` and in `tests/interop/keys`; without them these tests fail
//! and say so.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::key::{PatientRoot, TreeNode};
use caregate_protocol::segment::{Cipher, Header, Segment, SegmentHash, signer_id};
use caregate_protocol::wrap::{HpkePrivateKey, Wrap, WrapScope};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

const PATIENT: PatientId = PatientId([0xe5; 16]);
const RECIPIENT: RecipientId = RecipientId([0xb2; 20]);
const CLASS: DataClass = DataClass::Waveform;
const GENERATION: u32 = 3;
/// Some minute of 2026; its bits are of both kinds.
const EPOCH: u32 = 0x01c9_b6a5;
/// Of a node that opens 4,096 epochs.
const DEPTH: u8 = 20;
const PLAINTEXT: &[u8] = b"readings as CBOR, or anything else";

fn root() -> PatientRoot {
    PatientRoot::from_bytes([0x5a; 32])
}

fn device() -> SigningKey {
    SigningKey::from_bytes(&[0xd0; 32])
}

fn recipient() -> HpkePrivateKey {
    HpkePrivateKey::from_bytes([0x77; 32])
}

fn tree() -> TreeNode {
    root().class_key(CLASS, GENERATION)
}

fn scope() -> WrapScope {
    WrapScope { class: CLASS, patient: PATIENT, generation: GENERATION, recipient: RECIPIENT }
}

fn segment(cipher: Cipher) -> Vec<u8> {
    let header = Header {
        class: CLASS,
        cipher,
        patient: PATIENT,
        signer: signer_id(&device().verifying_key()),
        generation: GENERATION,
        epoch: EPOCH,
        sequence: 0x0102_0304_0506_0708,
        prev: SegmentHash([0x3c; 32]),
        salt: [0x99; 16],
        sealed_us: 1_790_000_000_000_000,
        readings: 7,
    };
    header.seal(PLAINTEXT, &tree().epoch_key(EPOCH).unwrap(), &device()).unwrap().0
}

fn wrap() -> Vec<u8> {
    let leaf = tree().descend(EPOCH, 32).unwrap();
    scope().seal(&leaf, &recipient().public_key().unwrap(), &device()).unwrap().to_vec()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/keys")
}

/// Gives a program one JSON object and takes one.
fn ask(mut command: Command, given: &Value) -> Value {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| {
        panic!("{command:?} can't run ({error}); `cargo xtask interop --keys` installs it")
    });
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// What another implementation sealed opens here.
fn opens(segment: &[u8], cipher: Cipher) {
    let read = Segment::decode(segment).unwrap();
    read.verify(&device().verifying_key()).unwrap();
    assert_eq!((read.header.cipher, read.header.epoch), (cipher, EPOCH));
    assert_eq!(read.open(&tree().epoch_key(EPOCH).unwrap()).unwrap(), PLAINTEXT);
}

fn unwraps(wrap: &[u8], depth: u8) {
    let read = Wrap::decode(wrap).unwrap();
    read.verify(&device().verifying_key()).unwrap();
    let node = read.open(&recipient(), &device().verifying_key()).unwrap();
    assert_eq!((node.depth(), node.key()), (depth, tree().descend(EPOCH, depth).unwrap().key()));
}

#[test]
fn python_cryptography_agrees_on_keys_segments_and_wraps() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../interop/keys/bin/python3");
    let given = json!({
        "root": hex::encode(root().as_bytes()),
        "device": hex::encode(device().to_bytes()),
        "private": hex::encode(recipient().as_bytes()),
        "plaintext": hex::encode(PLAINTEXT),
        "class": CLASS as u8,
        "generation": GENERATION,
        "epoch": EPOCH,
        "depth": DEPTH,
        "aes": hex::encode(segment(Cipher::Aes256Gcm)),
        "chacha": hex::encode(segment(Cipher::ChaCha20Poly1305)),
        "wrap": hex::encode(wrap()),
    });
    let mut command = Command::new(python);
    command.arg(folder().join("keys.py"));
    let answer = ask(command, &given);
    let key = |depth| hex::encode(tree().descend(EPOCH, depth).unwrap().key());
    assert_eq!((&answer["class_key"], &answer["inner"]), (&json!(key(0)), &json!(key(DEPTH))));
    assert_eq!((&answer["leaf"], &answer["wrapped"]), (&json!(key(32)), &json!(key(32))));
    for opened in ["opened_aes", "opened_chacha"] {
        assert_eq!(bytes(&answer[opened]), PLAINTEXT, "{opened}");
    }
    opens(&bytes(&answer["sealed_aes"]), Cipher::Aes256Gcm);
    opens(&bytes(&answer["sealed_chacha"]), Cipher::ChaCha20Poly1305);
    unwraps(&bytes(&answer["sealed_wrap"]), DEPTH);
}

#[test]
fn hpke_core_agrees_on_wraps() {
    assert!(
        folder().join("node_modules/@hpke/core").is_dir(),
        "@hpke/core is missing: `cargo xtask interop --keys` installs it"
    );
    let given = json!({
        "device": hex::encode(device().to_bytes()),
        "private": hex::encode(recipient().as_bytes()),
        "public": hex::encode(recipient().public_key().unwrap().0),
        "wrap": hex::encode(wrap()),
    });
    let mut command = Command::new("node");
    command.arg("wraps.mjs").current_dir(folder());
    let answer = ask(command, &given);
    assert_eq!(bytes(&answer["wrapped"]), tree().descend(EPOCH, 32).unwrap().key());
    unwraps(&bytes(&answer["sealed_wrap"]), 32);
}
