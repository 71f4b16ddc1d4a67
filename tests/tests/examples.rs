//! What is written for operators is true of the code: example configurations parse whole and mean something, units and
//! documents name what is there.
//!
//! A key that a daemon knows and an example lacks is not noticed here; a key that is misspelt, missing or gone is.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use caregate_host::config;
use caregate_protocol::openflow::session::Timing;
use caregate_tests::sensor::{Config as SensorsConfig, PayloadFormat, SourceConfig};
use serde::de::DeserializeOwned;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn examples() -> PathBuf {
    root().join("deploy/examples")
}

fn text(name: &str) -> String {
    let path = examples().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse<T: DeserializeOwned>(name: &str) -> T {
    config::parse(Path::new(name), &text(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn each_part_has_one_and_there_is_no_other() {
    let mut names: Vec<_> = std::fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    // The ledger's is parsed by the tests of ledger-client/node.
    let parts = [
        "clinician-feed",
        "core-cloud",
        "datapathd",
        "edge-gateway",
        "ledger-node",
        "sdn-controller",
        "sensors",
        "switch",
    ];
    // The timer's that anchors an audit log is a unit's environment.
    let mut wanted = vec!["audit-core.env".to_owned()];
    wanted.extend(parts.map(|part| format!("{part}.toml")));
    assert_eq!(names, wanted);
}

#[test]
fn edge_gateway() {
    use edge_gateway::mqtt::credentials::Credentials;
    use edge_gateway::spool::{Limits, Log};

    let file: edge_gateway::config::ConfigFile = parse("edge-gateway.toml");
    let mqtt = file.mqtt.expect("the example has the embedded server");
    assert!(mqtt.listen.is_some() && mqtt.listen_tls.is_some());
    assert_eq!(mqtt.credentials.len(), 1);
    Credentials::new(mqtt.credentials).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(file.brokers.len(), 1);
    let local = file.local.expect("the example has the local door");
    edge_gateway::local::Login::new(&local.access_code).unwrap_or_else(|error| panic!("{error}"));
    assert!(local.revoke_keys.is_some() && local.oui.is_some());
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path(), Limits::with_budget(file.spool.bytes_max)).unwrap();
}

#[test]
fn datapathd() {
    let file: caregate_datapathd::config::ConfigFile = parse("datapathd.toml");
    file.check().unwrap_or_else(|error| panic!("{error}"));
    assert!(!file.sensor_ports.is_empty() && !file.uplinks.is_empty());
}

#[test]
fn switch() {
    let file: edge_gateway::config::SwitchFile = parse("switch.toml");
    let gateway: edge_gateway::config::ConfigFile = parse("edge-gateway.toml");
    assert_eq!(file.datapath, edge_gateway::config::DatapathEntry::default());
    assert_eq!(file.controller.address, gateway.controller.unwrap().address);
    let unit = std::fs::read_to_string(root().join("deploy/systemd/caregate-switch.service")).unwrap();
    let start = "ExecStart=/usr/local/bin/edge-gateway switch --config /etc/caregate/switch.toml\n";
    assert!(unit.contains(start) && unit.contains("\nCapabilityBoundingSet=\n"), "{unit}");
}

/// What the example calls a default is one.
#[test]
fn edge_gateway_defaults() {
    let file: edge_gateway::config::ConfigFile = parse("edge-gateway.toml");
    let spool = edge_gateway::config::SpoolEntry::default();
    assert_eq!((file.spool.bytes_max, file.spool.linger_ms), (spool.bytes_max, spool.linger_ms));
    let limits = edge_gateway::mqtt::limits::Limits::default();
    let mqtt = file.mqtt.unwrap();
    assert_eq!(mqtt.connections_max, Some(limits.connections_max));
    assert_eq!(mqtt.publishes_per_s.map(NonZeroU32::get), Some(limits.publishes_per_s));
}

/// `cargo xtask pki sensor-password` prints an entry that is put at the file's end.
#[test]
fn a_credential_may_be_appended() {
    let entry = "[[mqtt.credential]]\ndevice = \"cuff-1\"\nusername = \"cuff-1\"\n\
                 salt = \"00112233445566778899aabbccddeeff\"\nsha256 = \"\"\n";
    let text = text("edge-gateway.toml") + entry;
    let file: edge_gateway::config::ConfigFile = config::parse(Path::new("appended"), &text).unwrap();
    assert_eq!(file.mqtt.unwrap().credentials[1].device.as_str(), "cuff-1");
}

#[test]
fn core_cloud() {
    let file: core_cloud::config::ConfigFile = parse("core-cloud.toml");
    let peers = core_cloud::config::Peers::try_from((file.gateways.as_slice(), file.feeds.as_slice()))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((peers.gateways.len(), peers.feeds.len()), (2, 1));
}

#[test]
fn clinician_feed() {
    let file: clinician_feed::config::ConfigFile = parse("clinician-feed.toml");
    let domain = clinician_feed::config::Domain::try_from(&file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((domain.device_keys().count(), domain.beds.len(), domain.users.len()), (1, 1, 1));
    assert!(file.tls.is_some(), "a page without TLS is no example");
}

#[test]
fn sdn_controller() {
    let file: sdn_controller::config::ConfigFile = parse("sdn-controller.toml");
    Timing::try_from(file.timing).unwrap_or_else(|error| panic!("{error}"));
    let bindings = sdn_controller::config::bindings(&file.switches).unwrap_or_else(|error| panic!("{error}"));
    assert!(bindings.is_some_and(|bindings| bindings.len() == file.switches.len()));
}

#[test]
fn sensors() {
    let file =
        SensorsConfig::load(&examples().join("sensors.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(file.devices[0].source, SourceConfig::Generator(_)));
    assert!(matches!(file.devices[1].source, SourceConfig::Record(_)));
    assert_eq!(file.devices[2].payload, PayloadFormat::SenmlCbor);
}

/// Parts that talk to each other are configured alike: names, keys and addresses.
#[test]
fn they_fit_each_other() {
    let gateway: edge_gateway::config::ConfigFile = parse("edge-gateway.toml");
    let core: core_cloud::config::ConfigFile = parse("core-cloud.toml");
    let feed: clinician_feed::config::ConfigFile = parse("clinician-feed.toml");
    let sensors: SensorsConfig = parse("sensors.toml");
    assert_eq!(gateway.core.address, feed.core.address);
    assert_eq!(gateway.core.address.port(), core.listen.port());
    assert_eq!(gateway.core.name.as_deref(), Some(feed.core.name.as_str()));
    assert_eq!(core.gateways[0].name, feed.gateways[0].name);
    assert_eq!(core.gateways[0].device_keys, feed.gateways[0].device_keys);
    assert_eq!(core.feeds[0].recipients, [feed.recipient]);
    assert_eq!(gateway.mqtt.unwrap().listen.as_deref(), Some(sensors.broker.as_str()));
}

/// Each daemon's unit runs it on the file that its `--config` names by default.
#[test]
fn units_name_their_files() {
    let units = root().join("deploy/systemd");
    for part in ["clinician-feed", "core-cloud", "edge-gateway", "ledger-node", "sdn-controller"] {
        let path = units.join(format!("caregate-{part}.service"));
        let unit =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let start = format!("ExecStart=/usr/local/bin/{part} --config /etc/caregate/{part}.toml\n");
        assert!(unit.contains(&start), "{}", path.display());
        for needed in
            ["NoNewPrivileges=yes\n", "CapabilityBoundingSet=\n", "ProtectSystem=strict\n", "UMask=0077\n"]
        {
            assert!(unit.contains(needed), "{}: {needed}", path.display());
        }
    }
    assert!(units.join("caregate-clinician-feed.socket").exists());
}

/// Audit logs are anchored by a timer, as their daemon's user, by a command that there is.
#[test]
fn the_timer_anchors_what_its_file_names() {
    let unit = |name: &str| std::fs::read_to_string(root().join("deploy/systemd").join(name)).unwrap();
    let (service, timer) = (unit("caregate-audit-anchor@.service"), unit("caregate-audit-anchor@.timer"));
    assert!(timer.contains("OnCalendar=hourly\n") && timer.contains("WantedBy=timers.target\n"));
    for needed in ["User=caregate-%i\n", "NoNewPrivileges=yes\n", "CapabilityBoundingSet=\n", "UMask=0077\n"]
    {
        assert!(service.contains(needed), "{needed}");
    }
    let example = text("audit-core.env");
    let values: std::collections::BTreeMap<_, _> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    let start =
        service.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/caregatectl ")).unwrap();
    let called = start.split(' ').flat_map(|word| match word.strip_prefix('$') {
        Some(name) => values[name.trim_matches(['{', '}'])].split(' ').collect::<Vec<_>>(),
        None => vec![word],
    });
    let log = &format!("{}/journal.jsonl", "/var/lib/caregate/core-cloud");
    let expected = ["audit", "anchor", "--rpc", values["RPC"], "--chain-id", "4711", "--contract"];
    let called: Vec<_> = called.collect();
    assert_eq!(called[..7], expected);
    assert_eq!(called[called.len() - 2..], ["--log", log]);
}

/// The one part with privilege has what it needs, and the gateway finds it where its example says.
#[test]
fn the_datapath_helper_is_where_the_gateway_asks() {
    use edge_gateway::config::DatapathEntry;

    let unit = |name: &str| std::fs::read_to_string(root().join("deploy/systemd").join(name)).unwrap();
    let service = unit("caregate-datapathd.service");
    for needed in [
        "ExecStart=/usr/local/bin/caregate-datapathd --config /etc/caregate/datapathd.toml\n",
        "CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_NET_RAW\n",
        "NoNewPrivileges=yes\n",
        "ProtectSystem=strict\n",
        "UMask=0077\n",
    ] {
        assert!(service.contains(needed), "{needed}");
    }
    let file: edge_gateway::config::ConfigFile = parse("edge-gateway.toml");
    let DatapathEntry::Helper(path) = file.datapath else { panic!("the example has a packet filter") };
    assert_eq!(DatapathEntry::Helper(path.clone()), DatapathEntry::default());
    let socket = unit("caregate-datapathd.socket");
    assert!(socket.contains(&format!("ListenStream={}\n", path.display())));
    let helper: caregate_datapathd::config::ConfigFile = parse("datapathd.toml");
    assert!(socket.contains(&format!("SocketUser={}\nSocketMode=0600\n", helper.user)));
}

/// Files below `folder` whose names end so, without what is built or fetched.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a folder can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && !["target", "node_modules", ".git"].contains(&name.as_str()) {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Names of metrics in a text: what begins with `caregate_` and one of the daemons' prefixes.
fn metrics(text: &str) -> BTreeSet<String> {
    let prefixes =
        ["mqtt", "broker", "gateway", "core", "feed", "controller", "identity", "ledger", "tls", "datapath"];
    let names = text.match_indices("caregate_").map(|(at, _)| {
        let rest = &text[at..];
        rest[..rest.find(|c: char| c != '_' && !c.is_ascii_lowercase()).unwrap_or(rest.len())].to_owned()
    });
    names
        .filter(|name| {
            let mut parts = name.split('_').skip(1);
            parts.next().is_some_and(|part| prefixes.contains(&part))
                && parts.next().is_some_and(|part| !part.is_empty())
        })
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let mut in_code = BTreeSet::new();
    for daemon in [
        "edge-gateway",
        "ebpf/helper",
        "core-cloud",
        "clinician-feed",
        "sdn-controller",
        "ledger-client/node",
        "host",
    ] {
        for file in files(&root().join(daemon).join("src"), ".rs") {
            in_code.extend(metrics(&std::fs::read_to_string(file).unwrap()));
        }
    }
    assert!(in_code.len() > 40, "the names are not where they were: {in_code:?}");
    let documented = metrics(&std::fs::read_to_string(root().join("docs/operations.md")).unwrap());
    assert_eq!(in_code.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not documented");
    assert_eq!(documented.difference(&in_code).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the code");
}

/// Relative links between documents lead somewhere. Images are left out: the page's is made by a run of the demo.
#[test]
fn links_between_documents_lead_somewhere() {
    let (mut seen, mut dead) = (0, Vec::new());
    for document in files(&root(), ".md") {
        let text = std::fs::read_to_string(&document).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            let label = &text[..at];
            let image = label.rfind('[').is_some_and(|bracket| label[..bracket].ends_with('!'));
            if image || target.is_empty() || target.contains("://") {
                continue;
            }
            seen += 1;
            if !document.parent().unwrap().join(target).exists() {
                dead.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(seen > 30, "{seen} links");
}
