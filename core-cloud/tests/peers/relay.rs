//! What the core carries and never keeps: heartbeats to feeds, sealed commands to gateways.

use crate::support::{Core, Frames, Site, close_reason, until, within};
use caregate_protocol::beat::{Beat, PolicyState};
use caregate_protocol::command::{Command, SignedCommand};
use caregate_protocol::id::{PatientId, RecipientId};
use caregate_protocol::policy::EcdsaSignature;
use caregate_protocol::uplink::{Frame, VERSION};
use ed25519_dalek::SigningKey;

/// Of the gateway called gateway-1.
fn device() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn sealed(to: &SigningKey, sequence: u64) -> Vec<u8> {
    let command = Command {
        patient: PatientId([1; 16]),
        domain: RecipientId([2; 20]),
        sequence,
        issued_ms: 1,
        expires_ms: 2,
        content: Vec::new(),
    };
    SignedCommand { command, signature: EcdsaSignature([7; 65]) }.seal(&to.verifying_key()).unwrap()
}

async fn until_counted(core: &Core, outcome: &str, count: u64) {
    let counter = core.metrics.commands.with_label_values(&[outcome]);
    until(outcome, || counter.get() >= count).await;
    assert_eq!(counter.get(), count, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_reach_every_feed_and_commands_the_gateway_that_they_name() {
    let site = Site::new();
    let core = site.core();
    let mut followers = Vec::new();
    for name in ["hospital-1", "hospital-2"] {
        let feed = site.feed(&core, name).await;
        let (mut out, incoming) = feed.connection.open_bi().await.unwrap();
        out.write_all(&Frame::Follow { version: VERSION }.encode()).await.unwrap();
        followers.push((feed, out, Frames::new(incoming)));
    }
    let mut gateway = site.gateway(&core, "gateway-1").await;
    let command = |bytes: Vec<u8>| Frame::Command { bytes }.encode();
    // Before its first heartbeat the connection takes none: it is not the alarm lane's.
    followers[0].1.write_all(&command(sealed(&device(), 1))).await.unwrap();
    until_counted(&core, "no_gateway", 1).await;
    // Both follow by now.
    followers[1].1.write_all(&command(b"rubbish".to_vec())).await.unwrap();
    until_counted(&core, "version", 1).await;

    let beat = Beat::sign(0, 5, PolicyState::default(), &device()).to_vec();
    gateway.control.write_all(&Frame::Beat { bytes: beat.clone() }.encode()).await.unwrap();
    for (_, _, frames) in &mut followers {
        assert_eq!(frames.next().await, Some(Frame::Beat { bytes: beat.clone() }));
    }
    let good = sealed(&device(), 2);
    followers[1].1.write_all(&command(sealed(&SigningKey::from_bytes(&[99; 32]), 2))).await.unwrap();
    followers[1].1.write_all(&command(good.clone())).await.unwrap();
    assert_eq!(gateway.answers.next().await, Some(Frame::Command { bytes: good.clone() }));
    assert_eq!(SignedCommand::open(&good, &device()).unwrap().command.sequence, 2);
    until_counted(&core, "no_gateway", 2).await;

    // Heartbeats that come too fast are passed over, and a flood of commands too.
    gateway.control.write_all(&Frame::Beat { bytes: beat.clone() }.encode()).await.unwrap();
    let too_often = core.metrics.beats.with_label_values(&["too_often"]);
    until("the second heartbeat", || too_often.get() >= 1).await;
    let flood = command(sealed(&SigningKey::from_bytes(&[99; 32]), 3)).repeat(200);
    followers[0].1.write_all(&flood).await.unwrap();
    let passed_over = core.metrics.commands.with_label_values(&["too_often"]);
    until("the flood", || passed_over.get() >= 100).await;

    // A gateway that is gone takes nothing.
    gateway.connection.close(0_u32.into(), b"");
    let gone = site.feed(&core, "hospital-1").await;
    let (mut out, _incoming) = gone.connection.open_bi().await.unwrap();
    out.write_all(&Frame::Follow { version: VERSION }.encode()).await.unwrap();
    let before = core.metrics.commands.with_label_values(&["no_gateway"]).get();
    within("the gateway's end", async {
        while core.metrics.commands.with_label_values(&["no_gateway"]).get() == before {
            out.write_all(&command(good.clone())).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(core.queued(1), 0, "nothing of it was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_sends_anything_else_is_closed() {
    let site = Site::new();
    let core = site.core();
    let feed = site.feed(&core, "hospital-1").await;
    let (mut out, _incoming) = feed.connection.open_bi().await.unwrap();
    out.write_all(&Frame::Follow { version: VERSION }.encode()).await.unwrap();
    out.write_all(&Frame::Hello { version: VERSION }.encode()).await.unwrap();
    assert_eq!(close_reason(&feed.connection).await, "unexpected");
}
