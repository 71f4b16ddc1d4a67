//! Policy by way of a core that the test plays, honest and not.

use std::sync::Arc;

use caregate_host::clock;
use caregate_host::identity::{Identity, Role};
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::offer::{Kind, Offer, OfferHash, Refusal, SignedVerdict};
use caregate_protocol::policy::delivery::{EMERGENCY_BYTES_MAX, Verdict};
use caregate_protocol::policy::{Pseudonym, SignedEmergency};
use caregate_protocol::reading::Reading;
use caregate_protocol::segment::signer_id;
use caregate_protocol::uplink::{ALPN, Frame, Framer};
use clinician_feed::emergency::BreakGlass;
use clinician_feed::feed::Chains;
use clinician_feed::journal::{Journal, What};
use clinician_feed::offer::Offerer;
use clinician_feed::opener::Opened;
use core_cloud::server;
use ed25519_dalek::SigningKey;
use ledger_client::verify::slots::text_commitment;
use ledger_client::verify::{Address, Domain, emergency_digest, signer};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::{mpsc, watch};

use crate::client::{Answer, JSON, get, next_of, open_at, post, post_bytes};
use crate::core::issue;
use crate::node::hospital;
use crate::{Site, USER, gateway_key, heart_rate, nowhere, start_by};

/// `nurse:correct horse`.
const BASIC: &str = "Authorization: Basic bnVyc2U6Y29ycmVjdCBob3JzZQ==\r\n";
const CBOR: &str = "Content-Type: application/cbor\r\n";

/// For which the hospital signs.
pub(crate) const DOMAIN: Domain = Domain { chain_id: 4711, verifying_contract: Address([0xc0; 20]) };

/// What the core says of an offer.
type Answering = fn(&[u8]) -> Frame;

/// A feed with two gateways, of which one has keys old and new, and a core that answers what it is told to.
struct Played {
    site: Site,
    answers: mpsc::UnboundedSender<Answering>,
    core: watch::Receiver<Option<Connection>>,
    _ends: (Endpoint, Endpoint),
}

impl Played {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let identity = |role, name| Identity::load(&issue(&dir, (&pem, &issuer), role, name)).unwrap();
        let core = server::bind("127.0.0.1:0".parse().unwrap(), &identity(Role::Core, "core-1")).unwrap();
        let address = core.local_addr().unwrap();
        let tls = identity(Role::Feed, "hospital-1").client_config(Role::Core, None, &[ALPN]);
        let mut feed = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        feed.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
        let (answers, told) = mpsc::unbounded_channel();
        tokio::spawn(play(core.clone(), told));
        let connection = feed.connect(address, "core").unwrap().await.unwrap();
        let core_known = watch::channel(Some(connection)).1;
        let break_glass = BreakGlass::new(nowhere(), hospital(), &[]);
        let offerer = offerer(core_known.clone());
        let site = start_by(1 << 20, None, Some((offerer, break_glass)));
        Self { site, answers, core: core_known, _ends: (core, feed) }
    }

    fn offerer(&self) -> Offerer {
        offerer(self.core.clone())
    }

    async fn post(&self, kind: &str, gateway: &str, answer: Answering) -> Answer {
        self.answers.send(answer).unwrap();
        let path = format!("/api/policy/{kind}?gateway={gateway}");
        post_bytes(&self.site, &path, &format!("{BASIC}{CBOR}"), b"as signed").await
    }
}

fn offerer(core: watch::Receiver<Option<Connection>>) -> Offerer {
    let keys = [9, 3].map(|byte| SigningKey::from_bytes(&[byte; 32]).verifying_key());
    let gateways = vec![
        ("gateway-1".to_owned(), vec![keys[1]]),
        // The newest is not in use yet.
        ("gateway-2".to_owned(), vec![keys[1], keys[0]]),
    ];
    Offerer::new(core, gateways)
}

/// Answers each offer with the next of `answers`; the last one again where there is none.
async fn play(core: Endpoint, mut answers: mpsc::UnboundedReceiver<Answering>) {
    let connection = core.accept().await.unwrap().await.unwrap();
    let mut answer: Option<Answering> = None;
    while let Ok((mut out, mut incoming)) = connection.accept_bi().await {
        let mut framer = Framer::new();
        framer.push(&incoming.read_to_end(2 << 20).await.unwrap());
        let Some(Frame::Offer { sealed, .. }) = framer.next_frame().unwrap() else { panic!("no offer") };
        answer = answers.try_recv().ok().or(answer);
        out.write_all(&answer.unwrap()(&sealed).encode()).await.unwrap();
        out.finish().unwrap();
    }
}

fn signed(verdict: &Verdict, sealed: &[u8], by: &SigningKey) -> Frame {
    Frame::Verdict { bytes: SignedVerdict::sign(verdict, OfferHash::of(sealed), by).to_vec() }
}

fn verdict(refused: Option<&str>) -> Verdict {
    Verdict { number: 7, epoch: 3, refused: refused.map(str::to_owned) }
}

/// As the gateway with [`gateway_key`] does it.
fn honest(sealed: &[u8]) -> Frame {
    let told = match Offer::open(sealed, &gateway_key()) {
        Ok(Offer { kind: Kind::Emergency, message }) if message == b"as signed" => verdict(None),
        Ok(_) => verdict(Some("not_pinned")),
        Err(error) => verdict(Some(error.reason())),
    };
    signed(&told, sealed, &gateway_key())
}

#[tokio::test]
async fn the_gateways_own_word_is_told_and_noted() {
    let played = Played::start().await;
    let taken = played.post("emergency", "gateway-1", honest).await;
    assert_eq!((taken.status, &taken.json()["refused"]), (200, &serde_json::Value::Null));
    assert_eq!((&taken.json()["number"], &taken.json()["epoch"]), (&7.into(), &3.into()));
    let refused = played.post("revocation", "gateway-1", honest).await;
    assert_eq!((refused.status, &refused.json()["refused"]), (422, &"not_pinned".into()));
    // While a gateway changes keys it is found by the one that it has.
    assert_eq!(played.post("emergency", "gateway-2", honest).await.status, 200);
    let (user, gateway) = (USER.to_owned(), "gateway-1".to_owned());
    let offered =
        |kind: &str| What::Offered { user: user.clone(), gateway: gateway.clone(), kind: kind.into() };
    let done = |kind: &str, why: Option<&str>| What::OfferDone {
        user: user.clone(),
        gateway: gateway.clone(),
        kind: kind.into(),
        why: why.map(str::to_owned),
    };
    let expected = [
        offered("emergency"),
        done("emergency", None),
        offered("revocation"),
        done("revocation", Some("not_pinned")),
    ];
    assert_eq!(played.site.noted()[..4], expected);
}

/// As the gateway does it, where it takes this hospital's signature on an emergency of one's pseudonym.
fn emergency_taken(sealed: &[u8]) -> Frame {
    let told = match Offer::open(sealed, &gateway_key()) {
        Ok(Offer { kind: Kind::Emergency, message }) => {
            let SignedEmergency { emergency, signature } = SignedEmergency::decode(&message).unwrap();
            let by = signer(&emergency_digest(&emergency, &DOMAIN), &signature).unwrap();
            let is_good = by.0 == hospital().id().0
                && emergency.pseudonym == Pseudonym([0xe1; 32])
                && emergency.until == emergency.from + 1800;
            verdict((!is_good).then_some("emergency_signature"))
        }
        Ok(_) | Err(_) => verdict(Some("not_pinned")),
    };
    signed(&told, sealed, &gateway_key())
}

#[tokio::test]
async fn who_breaks_the_glass_straight_at_a_gateway_needs_no_ledger_and_accounts_for_it() {
    let played = Played::start().await;
    let reason = "found unconscious in the street";
    // The core takes an answer for each offer that comes to it.
    let ask = async |gateway: Option<&str>, answer: Option<Answering>| {
        answer.into_iter().for_each(|answer| played.answers.send(answer).unwrap());
        let request = serde_json::json!({ "pseudonym": "e1".repeat(32), "reason": reason, "minutes": 30,
            "confirm": true, "gateway": gateway });
        post(&played.site, "/api/emergency", &format!("{BASIC}{JSON}"), &request.to_string()).await
    };
    assert_eq!(ask(None, None).await.status, 503, "there is no ledger");
    assert_eq!(ask(Some("gateway-9"), None).await.status, 404);
    let no_gateway: Answering = |_| Frame::NotOffered { refusal: Refusal::NotConnected };
    let away = ask(Some("gateway-1"), Some(no_gateway)).await;
    assert_eq!(away.status, 503);
    assert!(away.body.contains("the gateway is not connected"), "{away:?}");
    let no: Answering = |sealed| signed(&verdict(Some("not_registered")), sealed, &gateway_key());
    let refused = ask(Some("gateway-1"), Some(no)).await;
    assert_eq!(
        (refused.status, refused.json()),
        (409, serde_json::json!({ "error": "the gateway refuses: not_registered" }))
    );
    let opened = ask(Some("gateway-1"), Some(emergency_taken)).await;
    assert_eq!(opened.status, 200, "{opened:?}");
    let opened = opened.json();
    let number = opened["number"].as_u64().unwrap();
    assert_eq!(opened["until"].as_u64().unwrap() - opened["from"].as_u64().unwrap(), 1800);
    assert_eq!((opened["from"].as_u64(), &opened["block"]), (Some(number), &serde_json::Value::Null));

    let noted = played.site.noted();
    let at = noted.iter().rposition(|what| matches!(what, What::Emergency { .. })).unwrap();
    let [What::Emergency { clinician_salt, number: of, reason: why, .. }, rest @ ..] = &noted[at..] else {
        panic!("{noted:?}")
    };
    assert_eq!((*of, why.as_str()), (number, reason));
    let salt: [u8; 32] = hex::decode(clinician_salt).unwrap().try_into().unwrap();
    assert_ne!(text_commitment(&salt, USER), text_commitment(&salt, "somebody"));
    assert!(
        matches!(rest, [What::Offered { .. }, What::OfferDone { gateway, why: None, .. }] if gateway == "gateway-1"),
        "{rest:?}"
    );
    let failed = noted.iter().filter(|what| matches!(what, What::EmergencyFailed { .. })).count();
    assert_eq!(failed, 2, "the one that was not carried, and the one that was refused");
    // The page is told what access rests on, though the ledger was never heard.
    let until = opened["until"].as_u64().unwrap();
    let expected = serde_json::json!({"type":"access","patient":STRANGER,"basis":"emergency","until":until});
    assert_eq!(told_of_a_stranger(&played.site).await, expected);
    // A restarted feed has it from its journal.
    let entries = Journal::open(&played.site.journal_path()).unwrap().1;
    let break_glass = BreakGlass::new(nowhere(), hospital(), &entries);
    let ends: Vec<_> =
        break_glass.handed().borrow().iter().map(|known| (known.number, known.until)).collect();
    assert_eq!(ends, [(number, until)], "those that failed are none");
    let site = start_by(1 << 20, None, Some((played.offerer(), break_glass)));
    assert_eq!(told_of_a_stranger(&site).await, expected);
}

/// Whom no bed names.
const STRANGER: PatientId = PatientId([0xe1; 16]);

/// What the page is told that access to a stranger rests on, once a reading of now has come.
async fn told_of_a_stranger(site: &Site) -> serde_json::Value {
    let now_ms = clock::now_ms();
    let opened = Opened {
        patient: STRANGER,
        class: DataClass::Vitals,
        sequence: 1,
        readings: vec![Reading { gateway_time_us: now_ms * 1000, ..heart_rate(80.0) }],
        standings: Vec::new(),
        signer: signer_id(&gateway_key().verifying_key()),
        sealed_us: now_ms * 1000,
    };
    site.feed.append(vec![opened], Chains::new(), now_ms);
    let mut socket = open_at(site.address, "", crate::binary::BASIC).await.unwrap();
    loop {
        let message = next_of(&mut socket, "access").await;
        if message["patient"] == serde_json::json!(STRANGER) {
            return message;
        }
    }
}

#[tokio::test]
async fn the_page_is_told_which_gateways_there_are() {
    let played = Played::start().await;
    assert_eq!(get(&played.site, "/api/policy", "").await.status, 401);
    let told = get(&played.site, "/api/policy", BASIC).await;
    assert_eq!(told.json(), serde_json::json!({ "gateways": ["gateway-1", "gateway-2"] }));
}

#[tokio::test]
async fn a_core_can_withhold_and_not_answer_in_the_gateways_place() {
    let played = Played::start().await;
    let forgeries: [Answering; 3] = [
        // By another key, of another offer, and with another word than the gateway's.
        |sealed| signed(&verdict(None), sealed, &SigningKey::from_bytes(&[8; 32])),
        |_| signed(&verdict(None), b"another", &gateway_key()),
        |sealed| {
            let Frame::Verdict { mut bytes } = signed(&verdict(Some("not_pinned")), sealed, &gateway_key())
            else {
                unreachable!("it was made so")
            };
            bytes[64..74].fill(0);
            Frame::Verdict { bytes }
        },
    ];
    for forged in forgeries {
        let answer = played.post("revocation", "gateway-1", forged).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (502, &"forged_verdict".into()), "{answer:?}");
    }
    let cases: [(Answering, u16, &str); 4] = [
        (|_| Frame::NotOffered { refusal: Refusal::NotConnected }, 503, "not_connected"),
        (|_| Frame::NotOffered { refusal: Refusal::NoAnswer }, 504, "no_answer"),
        (|_| Frame::NotOffered { refusal: Refusal::TooOften }, 429, "too_often"),
        (|_| Frame::TakesOffers, 504, "lost"),
    ];
    for (answer, status, reason) in cases {
        let answer = played.post("revocation", "gateway-1", answer).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (status, &reason.into()), "{answer:?}");
    }
    let last = played.site.noted().pop().unwrap();
    assert!(matches!(last, What::OfferDone { why: Some(why), .. } if why == "lost"));
}

#[tokio::test]
async fn what_makes_no_sense_goes_nowhere() {
    let played = Played::start().await;
    let post = async |path: &str, head: &str, body: &[u8]| {
        let answer = post_bytes(&played.site, path, head, body).await;
        (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
    };
    let (good, head) = ("/api/policy/revocation?gateway=gateway-1", format!("{BASIC}{CBOR}"));
    assert_eq!(post(good, CBOR, b"x").await.0, 401);
    assert_eq!(post(good, BASIC, b"x").await.0, 415);
    assert_eq!(post(good, &format!("{head}Origin: http://elsewhere\r\n"), b"x").await.0, 403);
    assert_eq!(post("/api/policy/revocation", &head, b"x").await.0, 400);
    let (kind, nobody) = ("/api/policy/grant?gateway=gateway-1", "/api/policy/revocation?gateway=gateway-9");
    assert_eq!(post(kind, &head, b"x").await, (404, "kind".into()));
    assert_eq!(post(nobody, &head, b"x").await, (404, "no_gateway".into()));
    assert_eq!(post(good, &head, &[0; EMERGENCY_BYTES_MAX + 1]).await, (413, "too_large".into()));
    assert!(played.site.noted().is_empty());
}
