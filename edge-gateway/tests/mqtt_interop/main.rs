//! The embedded server against clients that others wrote, in both versions of the protocol: Eclipse paho (Python), MQTT.js over TCP and
//! WebSocket, mosquitto_pub, mosquitto_sub and their library, rumqttc. The scripts are in `tests/interop/mqtt`; `cargo xtask interop --mqtt` installs
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

use edge_gateway::ingest::{Fault, Intake, Verdict};
use edge_gateway::mqtt::limits::Limits;
use edge_gateway::mqtt::server::TlsDoor;
use mqtt_support::pki::Pki;
use mqtt_support::{Door, Raw};
use tokio::time::timeout;

/// All cases of one script take some 20 s.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(180);

const TOPIC: &str = "vitals/v1/a/num/heart-rate";

/// A pipeline that stores all but what says otherwise, and has no word for what says `hold`.
async fn store(mut inbound: Intake) {
    let mut held = Vec::new();
    while let Some(inbound) = inbound.recv().await {
        let verdict = match &inbound.payload[..] {
            b"hold" => {
                held.push(inbound.verdict);
                continue;
            }
            b"refuse" => Verdict::Refused,
            b"garbage" => Verdict::Quarantined(Fault::Payload),
            b"unbound" => Verdict::Quarantined(Fault::Device),
            _ => Verdict::Stored,
        };
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
        Self::open_with(None).await
    }

    async fn open_with(tls: Option<TlsDoor>) -> Self {
        let mut plain = Door::open_with(Limits::default(), tls.clone()).await;
        let limits = Limits { keep_alive_s_max: 2, inflight_max: 2, ..Limits::default() };
        let mut short = Door::open_with(limits, tls).await;
        for door in [&mut plain, &mut short] {
            tokio::spawn(store(door.take_inbound()));
        }
        Self { plain, short }
    }
}

/// Returns when the server has closed one that came just now, asked for 2 s, and said nothing. Who came before it has by then been silent for
/// longer than the server lets such a one be.
async fn a_silent_one_is_closed(door: &Door) {
    let mut silent = Raw::up(door.address, "says-nothing", 2).await;
    assert_eq!(silent.rest().await, [0_u8; 0]);
    door.closed("keep-alive", 1).await;
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/mqtt")
}

/// Runs a client to its end; it must exist, and end well.
async fn runs(program: PathBuf, args: Vec<String>) -> String {
    runs_on(Stdio::null(), program, args).await
}

/// As [`runs`], with this as its input.
async fn runs_on(input: impl Into<Stdio>, program: PathBuf, args: Vec<String>) -> String {
    let name = format!("{} {}", program.display(), args.join(" "));
    let mut command = Command::new(program);
    command.args(args).current_dir(scripts()).stdin(input);
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

/// All cases of MQTT.js against addresses of this scheme, as the server has them.
async fn mqtt_js(protocol: &str, scheme: &str) {
    assert!(
        scripts().join("node_modules/mqtt").exists(),
        "MQTT.js is missing: `cargo xtask interop --mqtt` installs it"
    );
    let pki = Pki::new();
    let tls = (scheme == "wss").then(|| pki.door(rustls::DEFAULT_VERSIONS));
    let servers = Servers::open_with(tls).await;
    let url = |door: &Door| match scheme {
        "ws" | "wss" => format!("{scheme}://localhost:{}/mqtt", door.websocket.port()),
        _ => format!("{scheme}://localhost:{}", door.address.port()),
    };
    let urls = [url(&servers.plain), url(&servers.short)];
    // Whom it trusts is a matter of its environment.
    let node = [format!("NODE_EXTRA_CA_CERTS={}", pki.path("ca.pem")), "node".to_owned()];
    let args = [&node[..], &["mqttjs_client.mjs".to_owned()], &urls, &[protocol.to_owned()]].concat();
    let said = runs("env".into(), args).await;
    assert_eq!(said.lines().count(), 11, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_over_tcp() {
    mqtt_js("4", "mqtt").await;
    mqtt_js("5", "mqtt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_over_websocket() {
    mqtt_js("4", "ws").await;
    mqtt_js("5", "ws").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_over_websocket_with_tls() {
    mqtt_js("4", "wss").await;
    mqtt_js("5", "wss").await;
}
