//! Policy by way of the core: to a gateway that no controller reaches, from a hospital's feed, through a core that can't read it.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use crate::called::{Called, until, write_private};
use crate::home::{Daemon, Home, ctl};
use crate::refused::learns;

/// A hospital's feed, and who logs in there.
struct Feed<'h> {
    home: &'h Home,
    url: String,
    password: String,
    _running: Daemon,
}

impl<'h> Feed<'h> {
    fn start(home: &'h Home) -> Self {
        let (running, page): (_, SocketAddr) = home.feed("hospital", home.recipient, &home.hospital, "g-1");
        let password = home.node.path("nurse.password");
        write_private(password.as_ref(), "correct horse\n");
        until("the feed listens", || TcpStream::connect(page).ok());
        Self { home, url: format!("http://{page}"), password, _running: running }
    }

    /// The arguments that name it.
    fn way(&self) -> [&str; 8] {
        let password = self.password.as_str();
        ["--feed", &self.url, "--to", "g-1", "--feed-user", "nurse", "--feed-password-file", password]
    }

    fn offer(&self, kind: &str, file: &str) -> Called {
        ctl(&[&["offer", kind, file][..], &self.way()].concat())
    }

    /// Offers until the answer is none of these: the feed finds its core, the core its gateway, and a pace is kept.
    fn offer_until(&self, kind: &str, file: &str, not_yet: &[&str]) -> Called {
        until("the gateway has an opinion", || {
            let called = self.offer(kind, file);
            let said = called.json()["refused"].as_str().map(str::to_owned);
            (!said.is_some_and(|said| not_yet.contains(&said.as_str()))).then_some(called)
        })
    }

    /// An emergency of a domain; the ledger is not there.
    fn emergency(&self, domain: &str, pseudonym: &str) -> Called {
        let node = &self.home.node;
        let (key, opening) = (node.path(&format!("{domain}.key")), node.path(&format!("{domain}.json")));
        let ledger = ["--rpc", "http://127.0.0.1:1", "--chain-id", "4711", "--contract", &node.contract];
        let who = ["--domain-key", &key, "--pseudonym", pseudonym, "--clinician", "Dr Example"];
        let why = ["--reason", "found unconscious at home", "--minutes", "30", "--opening", &opening];
        ctl(&[&["emergency", "open"][..], &ledger, &who, &why, &self.way()].concat())
    }
}

/// A copy of a file with one of its bits turned.
fn forged(home: &Home, file: &str, name: &str, from_end: usize) -> String {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    let path = home.node.path(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_carries_its_own_authority_counts_at_a_gateway_that_only_the_core_reaches() {
    let home = Home::new(&["g-1"]);
    home.second_hospital();
    let rescue = home.node.hospital("rescue", &["--emergency"]);
    let wallet = home.patient("g-1");
    let (core, controller) = (home.core(), home.controller());
    let bundle = learns(&home, &wallet, &home.configure_gateway("g-1", "gateway", ""), "bundle.cbor");
    controller.stop();
    let feed = Feed::start(&home);

    // Nothing is kept for a gateway that is away.
    let gateway = home.configure_gateway("g-1", "another", "");
    assert_eq!(feed.offer_until("bundle", &bundle, &["no_core"]).refused(), "not_connected");

    let running = gateway.start();
    running.reaches("caregate_gateway_lane_connected{lane=\"backlog\"}", 1.0);
    assert!(running.metric("caregate_gateway_policy_epoch ").unwrap() < 1.0, "it has a policy already");
    let bad = forged(&home, &bundle, "forged.cbor", 40);
    let not_yet = ["not_connected", "too_often"];
    let reason = feed.offer_until("bundle", &bad, &not_yet).refused();
    running.reaches(&format!("caregate_gateway_policy_refused_total{{reason=\"{reason}\"}}"), 1.0);
    let taken = feed.offer_until("bundle", &bundle, &not_yet).done();
    assert!(taken["gateway"]["epoch"].as_u64().unwrap() > 0, "{taken}");
    let in_force = "caregate_gateway_policy_offers_total{origin=\"core\",outcome=\"in_force\"}";
    running.reaches(in_force, 1.0);
    gateway.publish(0..5);

    // A revocation that the patient did not sign, one of another patient, and the patient's own.
    let file = home.node.path("revocation.cbor");
    wallet.call("sign-revocation", &["--label", "City", "--out", &file]).done();
    let bad = forged(&home, &file, "forged-revocation.cbor", 20);
    assert_eq!(feed.offer("revocation", &bad).refused(), "revocation_signature");
    let stranger = home.node.wallet("stranger");
    let other = format!("0x{}", "0b".repeat(20));
    stranger.call("relationship", &["--label", "City", "--grantee", &other]).done();
    let refused = stranger.call("revoke", &[&["--label", "City"][..], &feed.way()].concat());
    assert_eq!(refused.refused(), "not_pinned");
    running.delivers();
    let revoked = wallet.call("revoke", &[&["--label", "City"][..], &feed.way()].concat()).done();
    assert!(revoked["gateway"]["refused"].is_null() && revoked.get("ledger").is_none(), "{revoked}");
    running.reaches("caregate_gateway_policy_anchors_waiting ", 1.0);
    gateway.publish(5..10);

    // A hospital that treats may not break the glass; the rescue service may.
    let pseudonym = wallet.call("show", &[]).done()["pseudonym"].as_str().unwrap().to_owned();
    assert_eq!(feed.emergency("hospital", &pseudonym).refused(), "emergency_stranger");
    let opened = feed.emergency("rescue", &pseudonym).done();
    assert!(opened.get("ledger").is_none(), "{opened}");
    running.reaches("caregate_gateway_policy_emergencies ", 1.0);
    gateway.publish(10..15);
    running.delivers();

    assert!(core.metric("caregate_core_offers_total{outcome=\"carried\"}").unwrap() >= 7.0);
    let journal = fs::read_to_string(home.node.path("hospital-journal.jsonl")).unwrap();
    assert!(
        journal.contains("\"what\":\"offered\"") && journal.contains("revocation_signature"),
        "{journal}"
    );
    running.stop();
    core.stop();
    let (rates, refused) = home.found(&["g-1"]);
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(
        rates,
        (0..5).collect::<Vec<_>>(),
        "sealed for the hospital after the revocation, or not before"
    );
    assert!(
        !home.records_of(rescue.parse().unwrap()).is_empty(),
        "nothing was sealed for the rescue service"
    );
    nothing_of_it_is_at_the_core(&home, &pseudonym);
}

fn nothing_of_it_is_at_the_core(home: &Home, pseudonym: &str) {
    for entry in fs::read_dir(home.node.path("core")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let raw = hex::decode(pseudonym.trim_start_matches("0x")).unwrap();
        for part in [raw.as_slice(), pseudonym.as_bytes()] {
            assert!(!bytes.windows(part.len()).any(|at| at == part), "{} has the pseudonym", path.display());
        }
    }
    let log = fs::read_to_string(home.node.path("core.log")).unwrap();
    assert!(!log.contains(pseudonym), "{log}");
}
