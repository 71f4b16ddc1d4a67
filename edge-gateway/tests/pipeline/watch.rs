//! The watch with the real commit thread: an alarm is shown, sealed and sent out; staff's signed word is done, confirmed and noted;
//! nobody else's is.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::alarm::{Consciousness, Kind, Limits as AlarmLimits, Standing, State};
use caregate_protocol::beat::Beat;
use caregate_protocol::code;
use caregate_protocol::command::{Action, Command, Content};
use caregate_protocol::id::{DataClass, DeviceId, Lane};
use caregate_protocol::policy::{RecipientKind, RecipientStatus};
use caregate_protocol::reading::Value;
use edge_gateway::ingest::{Inbound, Inlet, Verdict};
use edge_gateway::pipeline::commit::Committer;
use edge_gateway::pipeline::unheard;
use edge_gateway::policy::trail::{Event, Origin};
use edge_gateway::policy::{Change, PolicyHandle, PolicyStore, Proposal};
use edge_gateway::spool::Limits;
use edge_gateway::watch::config::WebhookEntry;
use edge_gateway::watch::engine::{Observation, What};
use edge_gateway::watch::start::{self, Started};
use edge_gateway::watch::{Publish, Standings, Unheard, WatchEntry};
use ledger_client::fixture::{self, Site};
use ledger_client::verify::verify_bundle;
use prometheus::Registry;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::pipeline_support::commits::{Commits, Sources, doors};
use crate::pipeline_support::{Gateway, Home, Hospital, Publish as Message, device_key};

/// More than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What goes to the local topic.
struct Displays(std_mpsc::Sender<(String, serde_json::Value)>);

impl Publish for Displays {
    fn publish(&self, topic: &str, payload: Vec<u8>) {
        self.0.send((topic.to_owned(), serde_json::from_slice(&payload).unwrap())).unwrap();
    }
}

/// A home, and a ledger where the city hospital treats the patient, the study does not treat, and the clinic has no grant.
struct Cast {
    home: Home,
    site: Site,
    city: (fixture::Hospital, Hospital),
    study: fixture::Hospital,
    clinic: fixture::Hospital,
}

/// A gateway that runs.
struct Bedside {
    cast: Cast,
    inbound: Inlet,
    watch: Started,
    trail: PolicyStore,
    registry: Registry,
    displays: std_mpsc::Receiver<(String, serde_json::Value)>,
    stop: CancellationToken,
    commits: Commits,
    handle: PolicyHandle,
}

fn now_s() -> u64 {
    u64::try_from(clock::now_ms() / 1000).unwrap()
}

impl Cast {
    fn new() -> Self {
        let mut site = Site::new(4);
        let (city, study, clinic) =
            (Hospital::on_ledger(0x50), Hospital::on_ledger(0x52).0, Hospital::on_ledger(0x51).0);
        site.register(&city.0, RecipientStatus::Active, RecipientKind::Treating, false);
        site.register(&study, RecipientStatus::Active, RecipientKind::Other, false);
        site.register(&clinic, RecipientStatus::Active, RecipientKind::Treating, true);
        site.bind(0, true, 1);
        site.grant(0, &city.0, 1, |_| ());
        site.grant(2, &study, 1, |_| ());
        Self { home: Home::new(Limits::with_budget(64 << 20)), site, city, study, clinic }
    }

    /// What is on disk.
    fn unruled(&self) -> Gateway {
        let pins = Arc::new(self.site.enrolment.pins().unwrap());
        Gateway::open_with(self.home.dir.path(), self.home.limits, Some(pins), now_s())
    }

    /// The same, with the ledger's policy in force.
    fn open(&mut self) -> Gateway {
        let pins = Arc::new(self.site.enrolment.pins().unwrap());
        let mut gateway = self.unruled();
        let committer = &mut gateway.committer;
        if committer.policy.policy().is_none() {
            let bytes = self.site.clone().bytes(now_s());
            let floors = committer.policy.outputs().floors.borrow().clone();
            let bundle = verify_bundle(&bytes, &pins, &floors, now_s()).unwrap();
            let origin = Origin::Door;
            let change = Change::Bundle { bundle: Box::new(bundle), bytes, origin };
            committer.decide(Proposal::new(change).0, clock::now_us(), clock::monotonic());
        }
        gateway
    }

    fn device(&self) -> DeviceId {
        self.site.enrolment.patients[0].devices[0].device.clone()
    }
}

impl Bedside {
    fn new(webhook: Option<WebhookEntry>) -> Self {
        Self::on(Cast::new(), webhook)
    }

    fn on(mut cast: Cast, webhook: Option<WebhookEntry>) -> Self {
        let mut committer = cast.open().committer;
        let unheard = unheard::find(&committer.log, &mut committer.keys).unwrap();
        Self::begin(cast, committer, unheard, webhook)
    }

    fn begin(cast: Cast, mut committer: Committer, unheard: Unheard, webhook: Option<WebhookEntry>) -> Self {
        let pins = Arc::new(cast.site.enrolment.pins().unwrap());
        // At once, so that no test waits for a delay.
        let at_once = AlarmLimits { low: Some(90.0), ..AlarmLimits::default() };
        let entry =
            WatchEntry { limits: [("spo2".to_owned(), at_once)].into(), webhook, ..WatchEntry::default() };
        let registry = Registry::new();
        let (tap, material) =
            start::open(&entry, committer.keys.watch(), unheard, device_key(), &registry).unwrap();
        committer.tap = tap;
        let (inbound, front) = doors();
        let (proposals, proposals_in) = mpsc::channel(1);
        let handle =
            PolicyHandle::new(Arc::clone(&pins), &committer.policy, proposals, committer.metrics.clone());
        let (trail, stop) = (committer.policy.store(), CancellationToken::new());
        let (shown, displays) = std_mpsc::channel();
        let publisher: Arc<dyn Publish> = Arc::new(Displays(shown));
        let mut watch = start::start(material, &handle, trail.clone(), Some(publisher), &stop).unwrap();
        let standings = std::mem::replace(&mut watch.standings, mpsc::channel(1).1);
        let sources = Sources { proposals: proposals_in, standings, ..Sources::default() };
        let commits = Commits::begin(committer, front, sources);
        Self { cast, inbound, watch, trail, registry, displays, stop, commits, handle }
    }

    async fn publish(&self, topic: &str, payload: &str) -> Verdict {
        let device = self.cast.device();
        let (verdict, answered) = oneshot::channel();
        let topic = format!("vitals/v1/{device}/{topic}");
        let received_us = clock::now_us();
        let payload = payload.as_bytes().to_vec().into();
        self.inbound
            .of(Lane::Vitals)
            .send(Inbound { device, topic, payload, received_us, verdict })
            .await
            .unwrap();
        answered.await.unwrap()
    }

    /// Waits until the patient's standing is as wanted.
    async fn standing(&mut self, what: &str, wanted: impl Fn(&Standing) -> bool) -> Arc<Standing> {
        let is = |views: &Arc<Standings>| views.get(&Site::PATIENT).is_some_and(|standing| wanted(standing));
        let shown = tokio::time::timeout(PATIENCE, self.watch.views.wait_for(is)).await;
        let views = Arc::clone(&shown.unwrap_or_else(|_| panic!("{what} never came")).unwrap());
        Arc::clone(&views[&Site::PATIENT])
    }

    /// A command as a feed would send it; `change` it before it is signed.
    fn sealed(&self, by: &fixture::Hospital, action: Action, change: impl FnOnce(&mut Command)) -> Vec<u8> {
        let now_ms = u64::try_from(clock::now_ms()).unwrap();
        let mut command = Command {
            patient: Site::PATIENT,
            domain: by.id(),
            sequence: now_ms,
            issued_ms: now_ms,
            expires_ms: now_ms + 20_000,
            content: Content { clinician: "nurse".into(), action }.encode(),
        };
        change(&mut command);
        self.cast.site.signed_command(by, command).seal(&device_key().verifying_key()).unwrap()
    }

    fn counted(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let of =
            families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        of.filter(|metric| {
            labels.iter().all(|(key, value)| {
                metric.get_label().iter().any(|label| label.name() == *key && label.value() == *value)
            })
        })
        .map(|metric| metric.get_counter().get_value())
        .sum()
    }

    async fn until_counted(&self, name: &str, labels: &[(&str, &str)]) {
        let counted = async {
            while self.counted(name, labels) < 1.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, counted).await.is_ok(), "{name} {labels:?} was not counted");
    }

    /// Ends everything. What is on disk is left.
    fn end(self) -> Cast {
        let Self { cast, inbound, stop, commits, handle, watch, displays, trail, .. } = self;
        stop.cancel();
        drop((inbound, handle, watch, trail));
        commits.end();
        // The watch has let go of its store once nothing more can come to the displays.
        while displays.recv().is_ok() {}
        cast
    }
}

/// What staff enter for the score, sealed to this gateway like all that they send.
async fn are_entered(bedside: &mut Bedside) {
    let sealed = bedside.sealed(&bedside.cast.city.0, Action::Oxygen { given: true }, |_| ());
    bedside.watch.commands.try_send(sealed).unwrap();
    bedside.standing("oxygen", |standing| standing.settings.oxygen.is_some()).await;
    let found = Action::Consciousness { found: Consciousness::Voice };
    let sealed = bedside.sealed(&bedside.cast.city.0, found, |_| ());
    bedside.watch.commands.try_send(sealed).unwrap();
    let entered =
        bedside.standing("consciousness", |standing| standing.settings.consciousness.is_some()).await;
    assert!(entered.settings.oxygen.unwrap().value);
    assert_eq!(entered.settings.consciousness.unwrap().value, Consciousness::Voice);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_shown_sealed_and_acknowledged_by_who_may() {
    let mut bedside = Bedside::new(None);
    assert_eq!(bedside.publish("num/spo2", r#"{"v":84}"#).await, Verdict::Stored);
    let standing = bedside.standing("the alarm", |standing| !standing.alarms.is_empty()).await;
    assert_eq!(
        (standing.alarms[0].kind, standing.alarms[0].text()),
        (Kind::Low, "** SpO2 84 < 90".to_owned())
    );
    let (topic, payload) = bedside.displays.recv_timeout(PATIENCE).unwrap();
    assert_eq!((topic.as_str(), &payload["loudest"]), ("gateway/v1/alarms/1", &serde_json::json!("medium")));
    assert_eq!(payload["alarms"][0]["text"], "** SpO2 84 < 90");
    assert!(!payload.to_string().contains(&Site::PATIENT.to_string()), "no pseudonym in the home's MQTT");

    let acknowledge = || Action::Acknowledge { alarms: vec![standing.alarms[0].number] };
    let send = |bytes| bedside.watch.commands.try_send(bytes).unwrap();
    // Not granted, not treating, another's signature, another patient.
    send(bedside.sealed(&bedside.cast.clinic, acknowledge(), |_| ()));
    send(bedside.sealed(&bedside.cast.study, acknowledge(), |_| ()));
    let city = bedside.cast.city.0.id();
    send(bedside.sealed(&bedside.cast.clinic, acknowledge(), |command| command.domain = city));
    for reason in ["not_granted", "not_treating", "signature"] {
        bedside
            .until_counted("caregate_gateway_commands_total", &[("action", "unheard"), ("outcome", reason)])
            .await;
    }
    send(bedside.sealed(&bedside.cast.city.0, acknowledge(), |command| {
        command.sequence = 1;
        (command.issued_ms, command.expires_ms) = (command.issued_ms - 30_000, command.issued_ms - 1);
    }));
    let refused = bedside.standing("the refusal", |standing| !standing.handled.is_empty()).await;
    assert_eq!(refused.handled[0].refused.as_deref(), Some("expired"));
    assert_eq!(refused.alarms[0].state, State::Active, "none of them did anything");

    let good = bedside.sealed(&bedside.cast.city.0, acknowledge(), |_| ());
    bedside.watch.commands.try_send(good.clone()).unwrap();
    let done = bedside
        .standing("the acknowledgement", |standing| standing.alarms[0].state == State::Acknowledged)
        .await;
    assert_eq!((done.handled[0].domain, &done.handled[0].refused), (city, &None));
    bedside.watch.commands.try_send(good).unwrap();
    bedside.until_counted("caregate_gateway_commands_total", &[("outcome", "replayed")]).await;
    let trail = bedside.trail.trail(16).unwrap();
    let commanded: Vec<_> = trail
        .iter()
        .filter_map(|entry| {
            let Event::Commanded { label, clinician, refused, .. } = &entry.event else { return None };
            Some((label.as_str(), clinician.as_str(), refused.as_deref()))
        })
        .collect();
    assert_eq!(commanded, [("City hospital", "nurse", None), ("City hospital", "nurse", Some("expired"))]);

    are_entered(&mut bedside).await;

    let beat = bedside.watch.beats.wait_for(Option::is_some).await.unwrap().unwrap();
    assert_eq!(Beat::decode(&beat).unwrap().verify(&device_key().verifying_key()), Ok(()));
    let until = done.at_us;
    let mut cast = bedside.end();
    let mut gateway = cast.open();
    let sealed = gateway.readings(DataClass::Alarm);
    let standings: Vec<_> = sealed
        .iter()
        .filter_map(
            |reading| if let Value::Standing(standing) = &reading.value { Some(standing) } else { None },
        )
        .collect();
    assert_eq!(standings.len(), sealed.len());
    assert!(standings.is_sorted_by_key(|standing| standing.at_us));
    assert!(standings.iter().any(|standing| standing.at_us == until), "what was shown was sealed");
    let opened = gateway.opened_by(&cast.city.1);
    assert!(
        opened.iter().any(|segment| segment.header.class == DataClass::Alarm),
        "and the hospital opens it"
    );
    let kept = gateway.committer.keys.watch().all().unwrap();
    assert_eq!(kept[0].1.handled.len(), 1, "a restart replays nothing");
}

/// The process ends between the PUBACK and the watch's own commit, and the sensor says it never again.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_event_that_the_watch_did_not_keep_stands_after_the_restart_and_once() {
    let mut cast = Cast::new();
    let mut first = cast.open();
    let begun = unheard::find(&first.committer.log, &mut first.committer.keys).unwrap();
    assert!(begun.events.is_empty());
    let policy = first.committer.policy.policy().cloned().unwrap();
    let now_ms = clock::now_ms();
    let event =
        |leaf: &str| Message::new(&cast.device().to_string(), leaf, format!(r#"{{"t":{now_ms},"seq":1}}"#));
    let (fall, leads_off) = (event("event/fall"), event("event/leads-off"));
    // Nobody listens at this gateway's tap.
    assert_eq!(first.commit_at(std::slice::from_ref(&fall), &policy, clock::now_us()), [Verdict::Stored]);
    // What lies before the newest checkpoint is not replayed.
    let checkpoint = first.committer.state.encode();
    first.committer.log.rotate(&checkpoint).unwrap();
    assert_eq!(first.commit_at(&[leads_off], &policy, clock::now_us()), [Verdict::Stored]);
    drop(first);

    let mut second = Bedside::on(cast, None);
    let standing = second.standing("the alarms", |standing| standing.alarms.len() == 2).await;
    let kinds: Vec<_> = standing.alarms.iter().map(|alarm| (alarm.kind, alarm.state)).collect();
    assert!(kinds.contains(&(Kind::Fall, State::Active)) && kinds.contains(&(Kind::LeadsOff, State::Active)));
    // Also where the sensor does say it again.
    let payload = String::from_utf8(fall.payload).unwrap();
    assert_eq!(second.publish("event/fall", &payload).await, Verdict::Stored);
    let acknowledge = Action::Acknowledge { alarms: Vec::new() };
    let sealed = second.sealed(&second.cast.city.0, acknowledge, |_| ());
    second.watch.commands.try_send(sealed).unwrap();
    second.standing("the acknowledgement", |standing| standing.alarms.len() == 1).await;

    let mut third = Bedside::on(second.end(), None);
    let standing = third.standing("a standing", |_| true).await;
    let kinds: Vec<_> = standing.alarms.iter().map(|alarm| (alarm.kind, alarm.state)).collect();
    assert_eq!(kinds, [(Kind::LeadsOff, State::Acknowledged)], "who has seen it is not told again");
    assert_eq!(third.publish("num/heart-rate", r#"{"v":70}"#).await, Verdict::Stored);
    third.standing("the leads", |standing| standing.alarms.is_empty()).await;

    // What the watch keeps may be durable before the spool is: a power cut between the two.
    let mut fourth = third.end().open();
    let committer = &mut fourth.committer;
    let (next, watch) = (committer.log.next(), committer.keys.watch());
    watch.keep(&[], next + 5).unwrap();
    let found = unheard::find(&committer.log, &mut committer.keys).unwrap();
    assert_eq!((found.events.len(), found.below), (0, next), "nothing of before is told again");
    assert_eq!(watch.heard().unwrap(), Some(next), "the positions are used again");
}

#[tokio::test]
async fn leads_that_are_off_stand_although_the_start_knows_of_no_policy() {
    let cast = Cast::new();
    let committer = cast.unruled().committer;
    let bytes = cast.site.clone().bytes(now_s());
    let leads_off = Observation {
        patient: Site::PATIENT,
        device: cast.device(),
        quantity: code::by_name("leads-off").unwrap().number,
        what: What::Event,
        is_withheld: false,
        seq: None,
        sensor_us: None,
        received_us: clock::now_us(),
    };
    let unheard = Unheard { events: vec![leads_off], below: 1 };
    let mut bedside = Bedside::begin(cast, committer, unheard, None);
    let verdict = bedside.handle.offer_bundle(bytes, Origin::Door).await;
    assert_eq!(verdict.refused, None);
    assert_eq!(bedside.publish("num/spo2", r#"{"v":80}"#).await, Verdict::Stored);
    bedside.standing("both", |standing| standing.alarms.len() == 2).await;
    bedside.end();
}

/// One request's head and body; answers 200.
async fn take_request(
    mut stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> (String, serde_json::Value) {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "the request ended early");
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(body) = serde_json::from_str(body) {
            let head = head.to_owned();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            stream.flush().await.unwrap();
            return (head, body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_each_alarm_once_it_listens_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/alarms");
    let bedside = Bedside::new(Some(WebhookEntry { url, ca: "/nowhere".into(), token: None }));
    // Nobody answers the first time.
    let answering = tokio::spawn(async move {
        drop(listener.accept().await.unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        take_request(stream).await
    });
    bedside.publish("event/fall", "").await;
    let (head, body) = tokio::time::timeout(PATIENCE, answering).await.unwrap().unwrap();
    assert!(head.starts_with("POST /alarms HTTP/1.1\r\n"), "{head}");
    assert_eq!(
        (&body["what"], &body["alarm"]["text"], &body["patient"]),
        (&serde_json::json!("raised"), &serde_json::json!("** FALL"), &serde_json::json!(1))
    );
    assert!(!body.to_string().contains(&Site::PATIENT.to_string()));
    bedside.until_counted("caregate_gateway_webhook_total", &[("outcome", "sent")]).await;
    assert!(bedside.counted("caregate_gateway_webhook_total", &[("outcome", "failed")]) >= 1.0);
    bedside.end();
}

/// A server's TLS, and its authority in a file.
fn tls(dir: &Path) -> tokio_rustls::TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("ca.pem"), made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_by_tls_shows_its_token_to_the_named_authority_alone() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (right, wrong) = (tls(dir.path()), tls(other.path()));
    let token = dir.path().join("token");
    caregate_host::key_file::write(&token, b"secret-1\n", caregate_host::key_file::Existing::Keep).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/alarms", listener.local_addr().unwrap().port());
    let entry = WebhookEntry { url, ca: dir.path().join("ca.pem"), token: Some(token) };
    let bedside = Bedside::new(Some(entry));
    let answering = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(wrong.accept(stream).await.is_err(), "it must not be spoken to");
        let (stream, _) = listener.accept().await.unwrap();
        take_request(right.accept(stream).await.unwrap()).await
    });
    bedside.publish("event/button", "").await;
    let (head, body) = tokio::time::timeout(PATIENCE, answering).await.unwrap().unwrap();
    assert!(head.contains("authorization: Bearer secret-1"), "{head}");
    assert_eq!(body["alarm"]["text"], "** CALL BUTTON");
    bedside.end();
}
