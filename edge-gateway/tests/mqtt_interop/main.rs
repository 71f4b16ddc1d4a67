//! The embedded server against clients that others wrote, in both versions of the protocol: Eclipse paho (Python), MQTT.js over TCP and
//! WebSocket, mosquitto_pub and mosquitto_sub, rumqttc. The scripts are in `tests/interop/mqtt`; `cargo xtask interop --mqtt` installs
//! their packages. What is missing fails by name.

#![expect(clippy::unwrap_used, reason = "a test's own helpers may panic")]

mod mosquitto;
#[path = "../mqtt_support/mod.rs"]
mod mqtt_support;
mod rumqttc_3_1_1;
mod rumqttc_5;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use edge_gateway::ingest::{Inbound, Verdict};
use edge_gateway::mqtt::limits::Limits;
use mqtt_support::Door;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// All cases of one script take some 20 s.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(180);

const TOPIC: &str = "vitals/v1/a/num/heart-rate";

/// A pipeline that stores all but what says `refuse`.
async fn store(mut inbound: mpsc::Receiver<Inbound>) {
    while let Some(inbound) = inbound.recv().await {
        let verdict = if &inbound.payload[..] == b"refuse" { Verdict::Refused } else { Verdict::Stored };
        inbound.verdict.send(verdict).ok();
    }
}

/// A server with its pipeline, and one with a Server Keep Alive of 2 s and a Receive Maximum of 2.
struct Servers {
    plain: Door,
    short: Door,
}

impl Servers {
    async fn open() -> Self {
        let mut plain = Door::open(Limits::default()).await;
        let limits = Limits { keep_alive_s_max: 2, inflight_max: 2, ..Limits::default() };
        let mut short = Door::open(limits).await;
        for door in [&mut plain, &mut short] {
            let (_, none) = mpsc::channel(1);
            tokio::spawn(store(std::mem::replace(&mut door.inbound, none)));
        }
        Self { plain, short }
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/mqtt")
}

/// Runs a client to its end; it must exist, and end well.
async fn runs(program: PathBuf, args: Vec<String>) -> String {
    let name = format!("{} {}", program.display(), args.join(" "));
    let mut command = Command::new(program);
    command.args(args).current_dir(scripts()).stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output: Output = match timeout(SCRIPT_PATIENCE, ran).await {
        Ok(ended) => match ended.unwrap() {
            Ok(output) => output,
            Err(error) => panic!("{name} can't run ({error}); `cargo xtask interop --mqtt` installs it"),
        },
        Err(_) => panic!("{name}: did not end within {SCRIPT_PATIENCE:?}"),
    };
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{said}\n{complained}", output.status);
    said.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../interop/paho/bin/python3");
    for protocol in ["4", "5"] {
        let servers = Servers::open().await;
        let ports = [&servers.plain, &servers.short].map(|door| door.address.port().to_string());
        let script = scripts().join("paho_client.py").display().to_string();
        let args = [vec![script], ports.to_vec(), vec![protocol.to_owned()]].concat();
        let said = runs(python.clone(), args).await;
        assert_eq!(said.lines().count(), 10, "{said}");
    }
}

async fn mqtt_js(protocol: &str, websocket: bool) {
    assert!(
        scripts().join("node_modules/mqtt").exists(),
        "MQTT.js is missing: `cargo xtask interop --mqtt` installs it"
    );
    let servers = Servers::open().await;
    let url = |door: &Door| match websocket {
        true => format!("ws://127.0.0.1:{}/mqtt", door.websocket.port()),
        false => format!("mqtt://127.0.0.1:{}", door.address.port()),
    };
    let args =
        vec!["mqttjs_client.mjs".to_owned(), url(&servers.plain), url(&servers.short), protocol.to_owned()];
    let said = runs("node".into(), args).await;
    assert_eq!(said.lines().count(), 10, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_over_tcp() {
    mqtt_js("4", false).await;
    mqtt_js("5", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_over_websocket() {
    mqtt_js("4", true).await;
    mqtt_js("5", true).await;
}
