use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::alarm::{
    Alarm, Consciousness, Handled, Kind, Priority, Refusal, Score, Settings, Standing, State,
};
use caregate_protocol::beat::{Beat, PolicyState};
use caregate_protocol::command::{Action, Content, SignedCommand};
use caregate_protocol::id::DataClass;
use clinician_feed::command::Commander;
use clinician_feed::feed::Feed;
use clinician_feed::journal::What;
use ed25519_dalek::SigningKey;
use ledger_client::verify::{Address, Domain, command_digest, signer};
use ledger_client::wallet::DomainKey;
use tokio::sync::broadcast;

use crate::client::{cookie, next_of, open, post};
use crate::{PATIENT, Site, T0_US, USER, gateway_key, heart_rate, start, start_by};

fn ledger() -> Domain {
    Domain { chain_id: 4711, verifying_contract: Address([0xc0; 20]) }
}

fn standing(at_us: i64, handled: Vec<Handled>) -> Standing {
    let alarm = Alarm {
        number: 3,
        kind: Kind::Low,
        priority: Priority::Medium,
        state: State::Active,
        quantity: Some(3),
        device: None,
        value: Some(84.0),
        limit: Some(90.0),
        since_us: T0_US,
    };
    let score = Score::Refused(Refusal::CategoryUnknown);
    Standing { at_us, alarms: vec![alarm], settings: Settings::default(), score, handled }
}

#[tokio::test]
async fn what_a_watch_says_is_told_whole_to_who_joins_and_a_silent_gateway_is_no_contact() {
    let site = start(1 << 20);
    site.feed.bedside().know([gateway_key().verifying_key()]);
    site.append_with(DataClass::Alarm, 1, Vec::new(), vec![standing(T0_US + 2, vec![])]);
    site.append_with(DataClass::Alarm, 0, Vec::new(), vec![standing(T0_US + 1, vec![])]);
    let headers = cookie(&site).await;
    let mut socket = open(&site, "", &[("Cookie", &headers)]).await.unwrap();
    let told = next_of(&mut socket, "standing").await;
    assert_eq!(told["alarms"][0]["text"], "** SpO2 84 < 90");
    assert_eq!((&told["at_ms"], &told["loudest"]), (&(T0_US / 1000).into(), &"medium".into()));
    assert_eq!(told["score"]["refused"], "category_unknown");
    assert_eq!(next_of(&mut socket, "contact").await["heard"], false);
    let policy = PolicyState { stale: true, clock_unknown: false, one_sealer: true };
    let beat = |counter, key: &SigningKey| {
        let beat = Beat::sign(counter, u64::try_from(clock::now_us()).unwrap(), policy, key);
        site.feed.bedside().beat(&beat, clock::monotonic());
    };
    // Another gateway's says nothing of this one.
    beat(0, &SigningKey::from_bytes(&[4; 32]));
    beat(0, &gateway_key());
    let since = clock::monotonic();
    let told = next_of(&mut socket, "contact").await;
    let policy = serde_json::json!({ "stale": true, "clock_unknown": false, "one_sealer": true });
    assert_eq!((&told["heard"], &told["policy"]), (&true.into(), &policy));
    assert_eq!(next_of(&mut socket, "contact").await["heard"], false);
    let silent = since.elapsed();
    assert!(silent < Duration::from_secs(10), "NO CONTACT came after {silent:?}");
    assert!(silent >= Duration::from_secs(7), "NO CONTACT came after {silent:?}");
}

/// The gateway's end: opens what comes, and says what became of it.
async fn watch(
    mut sent: broadcast::Receiver<Vec<u8>>,
    feed: Arc<Feed>,
    segment: u64,
    refused: Option<&'static str>,
) -> SignedCommand {
    // The first one is lost on its way.
    let lost = sent.recv().await.unwrap();
    let again = sent.recv().await.unwrap();
    assert_eq!(lost, again);
    let signed = SignedCommand::open(&again, &gateway_key()).unwrap();
    let handled = Handled {
        domain: signed.command.domain,
        sequence: signed.command.sequence,
        refused: refused.map(str::to_owned),
    };
    confirm(&feed, segment, standing(clock::now_us(), vec![handled]));
    signed
}

fn confirm(feed: &Feed, sequence: u64, standing: Standing) {
    let opened = clinician_feed::opener::Opened {
        patient: PATIENT,
        class: DataClass::Alarm,
        sequence,
        readings: Vec::new(),
        standings: vec![standing],
        signer: caregate_protocol::segment::signer_id(&gateway_key().verifying_key()),
        sealed_us: clock::now_us(),
    };
    feed.append(vec![opened], Default::default(), clock::now_ms());
}

async fn send(site: &Site, cookie: &str, action: &str) -> (u16, String) {
    let body = format!(r#"{{"patient":"{PATIENT}","action":{action}}}"#);
    let answer =
        post(site, "/api/command", &format!("Cookie: {cookie}\r\nContent-Type: application/json\r\n"), &body)
            .await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_command_is_signed_sealed_repeated_confirmed_and_noted() {
    let key = DomainKey::generate();
    let commands = broadcast::Sender::new(8);
    let commander = Commander::new(key.clone(), ledger(), commands.clone());
    let site = start_by(1 << 20, Some(commander), None);
    let cookie = cookie(&site).await;
    let acknowledge = r#"{"acknowledge":{"alarms":[3]}}"#;
    assert_eq!(send(&site, &cookie, acknowledge).await.0, 404, "nothing of the patient has come");
    site.feed.bedside().know([gateway_key().verifying_key()]);
    site.append(DataClass::Vitals, 0, vec![heart_rate(72.0)]);
    assert_eq!(send(&site, &cookie, r#"{"pause":{"seconds":601}}"#).await.0, 422);
    assert_eq!(send(&site, "caregate_session=00", acknowledge).await.0, 401);
    assert_eq!(send(&site, &cookie, r#"{"reboot":{}}"#).await.0, 400);

    let watching = tokio::spawn(watch(commands.subscribe(), Arc::clone(&site.feed), 1, None));
    let (status, body) = send(&site, &cookie, acknowledge).await;
    assert_eq!(status, 200, "{body}");
    let signed = watching.await.unwrap();
    let by = signer(&command_digest(&signed.command, &ledger()), &signed.signature);
    assert_eq!(by, Ok(Address(key.id().0)));
    let content = Content::decode(&signed.command.content).unwrap();
    assert_eq!(content, Content { clinician: USER.into(), action: Action::Acknowledge { alarms: vec![3] } });
    assert!(body.contains(&signed.command.sequence.to_string()), "{body}");

    let watching = tokio::spawn(watch(commands.subscribe(), Arc::clone(&site.feed), 2, Some("limits_order")));
    let (status, body) = send(&site, &cookie, r#"{"limits":{"quantity":3,"limits":{"low":88.0}}}"#).await;
    assert_eq!(status, 409);
    assert!(body.contains("limits_order"), "{body}");
    assert!(watching.await.unwrap().command.sequence > signed.command.sequence);

    let entered = [
        (3, r#"{"oxygen":{"given":true}}"#, Action::Oxygen { given: true }),
        (4, r#"{"consciousness":{"found":"voice"}}"#, Action::Consciousness { found: Consciousness::Voice }),
    ];
    for (segment, text, action) in entered {
        let watching = tokio::spawn(watch(commands.subscribe(), Arc::clone(&site.feed), segment, None));
        assert_eq!(send(&site, &cookie, text).await.0, 200, "{text}");
        let signed = watching.await.unwrap();
        assert_eq!(Content::decode(&signed.command.content).unwrap().action, action);
    }
    assert_eq!(send(&site, &cookie, r#"{"consciousness":{"found":"asleep"}}"#).await.0, 400);

    let noted = site.noted();
    let commands: Vec<_> = noted
        .iter()
        .filter_map(|what| {
            if let What::Command { user, action, .. } = what {
                return Some((user.as_str(), action.as_str(), "asked"));
            }
            let What::CommandDone { user, action, why, .. } = what else { return None };
            Some((user.as_str(), action.as_str(), if why.is_none() { "done" } else { "refused" }))
        })
        .collect();
    let expected = [
        (USER, "acknowledge", "asked"),
        (USER, "acknowledge", "done"),
        (USER, "limits", "asked"),
        (USER, "limits", "refused"),
        (USER, "oxygen", "asked"),
        (USER, "oxygen", "done"),
        (USER, "consciousness", "asked"),
        (USER, "consciousness", "done"),
    ];
    assert_eq!(commands, expected);
}
