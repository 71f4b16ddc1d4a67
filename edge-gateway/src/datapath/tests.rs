//! The client against a helper of the test's own on a real Unix socket; the real one is in `ebpf/helper/tests`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use caregate_protocol::datapath::switch::MeterEntry;
use caregate_protocol::datapath::{
    Device, Event, Framer, FromHelper, Mode, QUEUES, Reason, Role, ToHelper, VERSION,
};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::*;

const SESSION: u64 = 77;

fn port(up: bool) -> Port {
    let (name, mac) = ("eth1".to_owned(), [2, 0, 0, 0, 0, 9]);
    Port { number: 1, name, mac, role: Role::Sensor, mode: Mode::Native, up }
}

fn changes() -> Vec<Change> {
    vec![Change::PutMeter(MeterEntry { id: 1, counts_packets: true, bands: Vec::new() })]
}

fn bound(last: u8) -> Policy {
    Policy { devices: vec![Device { index: 0, mac: [2, 0, 0, 0, 0, last] }], ..Policy::default() }
}

/// A helper that says what the test tells it.
struct Scripted {
    listener: UnixListener,
    _folder: tempfile::TempDir,
    path: PathBuf,
}

struct Peer {
    stream: UnixStream,
    framer: Framer,
}

impl Scripted {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datapath.sock");
        Self { listener: UnixListener::bind(&path).unwrap(), _folder: folder, path }
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(Duration::from_secs(10), self.listener.accept()).await.unwrap().unwrap();
        let mut peer = Peer { stream, framer: Framer::new() };
        let hello = peer.request().await;
        assert_eq!(hello.request, Request::Hello { version: VERSION, session: SESSION });
        let welcome = Welcome { version: VERSION, queues: QUEUES, ports: vec![port(true)] };
        peer.reply(hello.number, Ok(Reply::Welcome(welcome))).await;
        peer
    }

    async fn connected(&self) -> (Datapath, Peer, CancellationToken) {
        let stop = CancellationToken::new();
        let (datapath, peer) =
            tokio::join!(Datapath::connect(&self.path, SESSION, stop.clone()), self.accept());
        (datapath.unwrap(), peer, stop)
    }
}

impl Peer {
    async fn request(&mut self) -> ToHelper {
        loop {
            if let Some(frame) = self.framer.next_frame().unwrap() {
                return ToHelper::decode(&frame).unwrap();
            }
            let mut buffer = [0; 4096];
            let read =
                timeout(Duration::from_secs(10), self.stream.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(read, 0, "the client has gone");
            self.framer.push(&buffer[..read]);
        }
    }

    async fn send(&mut self, frame: FromHelper) {
        use tokio::io::AsyncWriteExt;
        self.stream.write_all(&frame.encode()).await.unwrap();
    }

    async fn reply(&mut self, number: u32, result: Result<Reply, Refused>) {
        self.send(FromHelper::Reply { number, result }).await;
    }

    async fn done(&mut self) -> Request {
        let asked = self.request().await;
        self.reply(asked.number, Ok(Reply::Done)).await;
        asked.request
    }
}

async fn next(events: &mut mpsc::Receiver<HelperEvent>) -> HelperEvent {
    timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn without_a_helper_there_is_an_error_that_names_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    let error = Datapath::connect(&path, SESSION, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("nobody.sock") && error.contains("datapath = \"off\""), "{error}");
}

#[tokio::test]
async fn requests_are_answered_and_events_come_in_between() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let mut events = datapath.events();
    assert!(matches!(next(&mut events).await, HelperEvent::Up(welcome) if welcome.ports == [port(true)]));
    let serve = async {
        let asked = peer.request().await;
        peer.send(FromHelper::Event(Event::PortStatus(port(false)))).await;
        let refused = Refused { reason: Reason::Rule, detail: "rule 1".into() };
        peer.reply(asked.number, Err(refused)).await;
        assert_eq!(peer.done().await, Request::SetPolicy(bound(1)));
        let frame = FromHelper::Event(Event::PacketIn { uplink: 2, rule: 5, total_len: 60, frame: vec![1] });
        peer.send(frame).await;
        let asked = peer.request().await;
        peer.reply(asked.number, Ok(Reply::Counters(Counters::default()))).await;
    };
    let ask = async {
        assert!(matches!(datapath.change(Part::WHOLE, changes()).await, Err(DatapathError::Refused(_))));
        datapath.set_policy(bound(1)).await.unwrap();
        assert_eq!(datapath.counters().await.unwrap(), Counters::default());
    };
    tokio::join!(serve, ask);
    assert_eq!(next(&mut events).await, HelperEvent::Port(port(false)));
    assert_eq!(next(&mut events).await, HelperEvent::PacketIn { rule: 5, total_len: 60, frame: vec![1] });
    assert_eq!(datapath.ports(), [port(false)]);
}

#[tokio::test]
async fn a_helper_that_comes_back_is_told_what_is_in_force_and_then_policy() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let mut events = datapath.events();
    assert!(matches!(next(&mut events).await, HelperEvent::Up(_)));
    let (changed, _) = tokio::join!(datapath.change(Part::WHOLE, changes()), peer.done());
    changed.unwrap();
    drop(peer);
    assert_eq!(next(&mut events).await, HelperEvent::Down);
    assert!(datapath.ports().is_empty());
    // What is said meanwhile is answered at once; a policy is kept for later, changes are not.
    assert!(matches!(datapath.set_policy(bound(2)).await, Err(DatapathError::Away)));
    assert!(matches!(datapath.change(Part::WHOLE, vec![Change::Clear]).await, Err(DatapathError::Away)));
    let mut peer = helper.accept().await;
    let again = [vec![Change::Clear], changes()].concat();
    assert_eq!(peer.done().await, Request::Change { changes: again, more: false });
    assert_eq!(peer.done().await, Request::SetPolicy(bound(2)));
    assert!(matches!(next(&mut events).await, HelperEvent::Up(_)));
}

#[tokio::test]
async fn a_series_that_is_refused_in_the_middle_goes_to_its_end_and_the_next_is_whole() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let removes = |count: u64| (0..count).map(Change::RemoveFlow).collect::<Vec<_>>();
    let serve = async {
        let refused = |detail: &str| Refused { reason: Reason::Rule, detail: detail.into() };
        // The whole series comes, whatever is said to its parts; what counts is the first refusal.
        for (count, is_more, detail) in [(128, true, "flow 1"), (128, true, "part"), (44, false, "end")] {
            let part = peer.request().await;
            let Request::Change { changes, more } = part.request else { panic!("{:?}", part.request) };
            assert_eq!((changes.len(), more), (count, is_more));
            peer.reply(part.number, Err(refused(detail))).await;
        }
        assert!(matches!(peer.done().await, Request::Change { more: true, .. }));
        assert_eq!(peer.done().await, Request::Change { changes: removes(129)[128..].to_vec(), more: false });
    };
    let ask = async {
        let refused = datapath.change(Part::WHOLE, removes(300)).await.unwrap_err();
        assert!(matches!(refused, DatapathError::Refused(refused) if refused.detail == "flow 1"));
        datapath.change(Part::WHOLE, removes(129)).await.unwrap();
    };
    tokio::join!(serve, ask);
}

fn removes(ids: std::ops::Range<u64>) -> Vec<Change> {
    ids.map(Change::RemoveFlow).collect()
}

#[tokio::test]
async fn a_batch_that_comes_in_parts_is_one_series_and_is_told_again_as_a_whole() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let part = |before| Part { batch: 7, before };
    let serve = async {
        assert_eq!(peer.done().await, Request::Change { changes: changes(), more: true });
        assert_eq!(peer.done().await, Request::Change { changes: removes(0..2), more: true });
        assert_eq!(peer.done().await, Request::Change { changes: Vec::new(), more: false });
        drop(peer);
        let mut peer = helper.accept().await;
        // Removed flows leave nothing to be told.
        let all = [vec![Change::Clear], changes()].concat();
        assert_eq!(peer.done().await, Request::Change { changes: all, more: false });
    };
    let ask = async {
        datapath.prepare(part(0), changes()).await.unwrap();
        datapath.prepare(part(1), removes(0..2)).await.unwrap();
        datapath.change(part(2), Vec::new()).await.unwrap();
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_batch_whose_beginning_another_connection_had_is_refused_and_the_helper_sees_none_of_it() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let mut events = datapath.events();
    let part = |before| Part { batch: 7, before };
    let (begun, _) = tokio::join!(datapath.prepare(part(0), removes(0..2)), peer.done());
    begun.unwrap();
    drop(peer);
    let mut peer = helper.accept().await;
    for wanted in ["up", "down", "up"] {
        let event = next(&mut events).await;
        assert_eq!(if matches!(event, HelperEvent::Up(_)) { "up" } else { "down" }, wanted);
    }
    let order =
        |refused: DatapathError| matches!(refused, DatapathError::Refused(no) if no.reason == Reason::Order);
    assert!(order(datapath.prepare(part(1), removes(2..3)).await.unwrap_err()));
    assert!(order(datapath.change(part(2), Vec::new()).await.unwrap_err()));
    let next_batch = datapath.change(Part { batch: 8, before: 0 }, removes(5..6));
    let (changed, seen) = tokio::join!(next_batch, peer.done());
    changed.unwrap();
    assert_eq!(seen, Request::Change { changes: removes(5..6), more: false });
}

#[tokio::test]
async fn a_batch_that_never_ends_is_not_taken_for_the_beginning_of_the_next() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let begun = datapath.prepare(Part { batch: 7, before: 0 }, removes(0..2));
    let (begun, _) = tokio::join!(begun, peer.done());
    begun.unwrap();
    let next_batch = datapath.change(Part { batch: 8, before: 0 }, removes(5..6)).await;
    assert!(matches!(next_batch, Err(DatapathError::Away)), "{next_batch:?}");
    // The helper forgets with the connection.
    let mut peer = helper.accept().await;
    let mut welcome = datapath.welcome();
    let is_back = welcome.wait_for(Option::is_some);
    timeout(Duration::from_secs(10), is_back).await.unwrap().unwrap();
    let (changed, seen) =
        tokio::join!(datapath.change(Part { batch: 9, before: 0 }, removes(5..6)), peer.done());
    changed.unwrap();
    assert_eq!(seen, Request::Change { changes: removes(5..6), more: false });
}

#[tokio::test]
async fn a_descriptor_comes_with_its_reply() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let serve = async {
        let asked = peer.request().await;
        let bytes = FromHelper::Reply { number: asked.number, result: Ok(Reply::Socket) }.encode();
        send_with(&peer.stream, &bytes, &OwnedFd::from(theirs));
    };
    let (socket, ()) = tokio::join!(datapath.packet_socket(1), serve);
    let mut socket = std::os::unix::net::UnixStream::from(socket.unwrap());
    io::Write::write_all(&mut socket, b"heard").unwrap();
    let mut heard = [0; 5];
    io::Read::read_exact(&mut &ours, &mut heard).unwrap();
    assert_eq!(&heard, b"heard");
}

fn send_with(stream: &UnixStream, bytes: &[u8], descriptor: &OwnedFd) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let slices = [io::IoSlice::new(bytes)];
    assert_eq!(sendmsg(stream, &slices, &mut ancillary, SendFlags::empty()).unwrap(), bytes.len());
}

#[tokio::test]
async fn what_is_no_answer_ends_the_connection_and_a_new_one_is_made() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let mut events = datapath.events();
    let serve = async {
        peer.request().await;
        use tokio::io::AsyncWriteExt;
        peer.stream.write_all(&[0, 0, 0, 2, 0x82, 0xff]).await.unwrap();
        helper.accept().await
    };
    let (asked, mut peer) = tokio::join!(datapath.counters(), serve);
    assert!(matches!(asked, Err(DatapathError::Away)));
    // Once the new connection is in use, an answer to another question ends that one too.
    for wanted in ["up", "down", "up"] {
        let event = next(&mut events).await;
        assert_eq!(if matches!(event, HelperEvent::Up(_)) { "up" } else { "down" }, wanted);
    }
    let serve = async {
        let asked = peer.request().await;
        peer.reply(asked.number + 1, Ok(Reply::Done)).await;
        helper.accept().await
    };
    let (asked, _peer) = tokio::join!(datapath.change(Part::WHOLE, changes()), serve);
    assert!(matches!(asked, Err(DatapathError::Away)));
}

#[tokio::test]
async fn a_slow_listener_loses_frames_and_no_change_of_a_port() {
    let helper = Scripted::new();
    let (datapath, mut peer, _stop) = helper.connected().await;
    let mut events = datapath.events();
    let frame = || Event::PacketIn { uplink: 2, rule: 5, total_len: 60, frame: vec![] };
    for _ in 0..EVENTS_MAX + 10 {
        peer.send(FromHelper::Event(frame())).await;
    }
    peer.send(FromHelper::Event(Event::PortStatus(port(false)))).await;
    let mut welcome = datapath.welcome();
    timeout(Duration::from_secs(10), welcome.wait_for(|w| w.as_ref().is_some_and(|w| !w.ports[0].up)))
        .await
        .unwrap()
        .unwrap();
    let (mut frames, mut last) = (0, None);
    while let Ok(event) = events.try_recv() {
        frames += u64::from(matches!(event, HelperEvent::PacketIn { .. }));
        last = Some(event);
    }
    assert_eq!(frames + datapath.packets_lost(), u64::try_from(EVENTS_MAX).unwrap() + 10);
    assert_eq!(last, Some(HelperEvent::Port(port(false))));
}
