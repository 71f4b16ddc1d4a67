//! What goes up before it is durable.

use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{Frame, Framer};
use tokio::sync::mpsc;

use crate::pki::Ca;
use crate::support::{Core, Gateway, Session, frame, until, within};

/// What comes on the streams of all connections, frame by frame; of each stream whether it is the backlog's.
fn frames(session: &Session) -> mpsc::Receiver<(bool, Frame)> {
    let (sender, received) = mpsc::channel(64);
    for connection in session.lines.iter().map(|line| line.connection.clone()) {
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                let (sender, mut framer) = (sender.clone(), Framer::new());
                tokio::spawn(async move {
                    let Some(Frame::Lane { backlog, .. }) = frame(&mut framer, &mut stream).await else {
                        panic!("a stream begins with its lane")
                    };
                    while let Some(frame) = frame(&mut framer, &mut stream).await {
                        sender.send((backlog, frame)).await.unwrap();
                    }
                });
            }
        });
    }
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_goes_up_before_its_sync_and_counts_after_it() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start(&ca, core.address, &[]);
    let mut session = core.welcome(&gateway).await;
    let mut received = frames(&session);
    let first = gateway.early(Lane::Vitals);
    let Some((false, Frame::Early { position, record })) = within("it early", received.recv()).await else {
        panic!("not early")
    };
    assert_eq!((position, record), (first, first.to_be_bytes().repeat(50)));
    let second = gateway.early(Lane::Vitals);
    let early = within("the second", received.recv()).await.unwrap().1;
    assert!(matches!(early, Frame::Early { position, .. } if position == second), "{early:?}");
    gateway.sync();
    let durable = within("the word", received.recv()).await;
    assert_eq!(durable, Some((false, Frame::Durable { below: second + 1 })));
    let third = gateway.spool(Lane::Vitals, 300);
    let data = within("the third", received.recv()).await.unwrap().1;
    assert!(matches!(data, Frame::Data { position, .. } if position == third), "{data:?}");
    for line in &mut session.lines {
        line.say(&Frame::Ack { ranges: vec![(first, third)] }).await;
    }
    until("all is acknowledged", || gateway.uplink.waiting() == 0).await;
    gateway.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_up_early_on_a_lost_connection_goes_up_again_when_it_is_durable() {
    let ca = Ca::new();
    let core = Core::new(&ca, 1 << 20);
    let mut gateway = Gateway::start(&ca, core.address, &[]);
    let session = core.welcome(&gateway).await;
    let mut received = frames(&session);
    let position = gateway.early(Lane::Vitals);
    assert!(matches!(within("it", received.recv()).await, Some((false, Frame::Early { .. }))));
    session.close();
    until("the gateway has noticed", || !gateway.ready()).await;
    let session = core.welcome(&gateway).await;
    let mut received = frames(&session);
    // Whoever sends the backlog has it, and it is in no place from which it could be read: it waits.
    let other = gateway.early(Lane::Alarm);
    let early = within("the other", received.recv()).await.unwrap();
    assert!(matches!(early, (false, Frame::Early { position, .. }) if position == other), "{early:?}");
    gateway.sync();
    let mut both = Vec::new();
    while both.len() < 2 {
        both.push(within("both", received.recv()).await.unwrap());
    }
    both.sort_by_key(|(backlog, _)| *backlog);
    assert_eq!(both[0], (false, Frame::Durable { below: other + 1 }));
    let is_it = |frame: &Frame| matches!(frame, Frame::Data { position: p, .. } if *p == position);
    assert!(both[1].0 && is_it(&both[1].1), "{both:?}");
    assert_eq!(gateway.uplink.waiting(), 2);
    gateway.stop.cancel();
    session.close();
}
