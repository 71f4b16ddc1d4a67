use caregate_protocol::openflow::multipart::{ReplyBody, RequestBody};
use caregate_protocol::openflow::{
    BadRequest, Capabilities, ErrorKind, Features, FragmentHandling, Header, Hello, Message, MultipartReply,
    SwitchConfig,
};
use prometheus::Registry;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;

/// A switch at the other end of a pipe.
struct FakeSwitch {
    stream: DuplexStream,
    server: JoinHandle<()>,
}

fn shared() -> Shared {
    let minute = Duration::from_secs(60);
    Shared {
        timing: Timing { handshake: minute, echo_interval: minute, echo_timeout: minute },
        switches: Arc::default(),
        metrics: Metrics::register(&Registry::new()).unwrap(),
        events: Events::default(),
        desired: watch::channel(Arc::default()).1,
        lane_ports: 7400,
        found: Arc::default(),
    }
}

impl FakeSwitch {
    fn connect(peer: &'static str, shared: &Shared, shutdown: &CancellationToken) -> Self {
        let (stream, theirs) = tokio::io::duplex(4096);
        let (shared, shutdown) = (shared.clone(), shutdown.clone());
        let server = tokio::spawn(async move { serve(theirs, peer, &shared, &shutdown).await });
        Self { stream, server }
    }

    async fn send(&mut self, xid: u32, message: &Message) {
        self.stream.write_all(&message.encode(xid).unwrap()).await.unwrap();
    }

    /// The next message; what is asked about flows, ports and tables is answered meanwhile: there are none.
    async fn receive(&mut self) -> (u32, Message) {
        loop {
            let (xid, message) = self.receive_any().await;
            let Message::MultipartRequest(request) = message else { return (xid, message) };
            let body = match request.body {
                RequestBody::Table => ReplyBody::Table(vec![]),
                RequestBody::PortDesc => ReplyBody::PortDesc(vec![]),
                RequestBody::PortStats(_) => ReplyBody::PortStats(vec![]),
                RequestBody::Flow(_) => ReplyBody::Flow(vec![]),
                other @ (RequestBody::Desc
                | RequestBody::Aggregate(_)
                | RequestBody::Queue(_)
                | RequestBody::Group(_)
                | RequestBody::GroupDesc
                | RequestBody::GroupFeatures
                | RequestBody::Meter(_)
                | RequestBody::MeterConfig(_)
                | RequestBody::MeterFeatures
                | RequestBody::TableFeatures(_)
                | RequestBody::Experimenter(_)
                | RequestBody::Other { .. }) => {
                    panic!("{other:?}")
                }
            };
            self.send(xid, &Message::MultipartReply(MultipartReply { more: false, body })).await;
        }
    }

    async fn receive_any(&mut self) -> (u32, Message) {
        let mut frame = vec![0; 8];
        self.stream.read_exact(&mut frame).await.unwrap();
        frame.resize(Header::decode(&frame).unwrap().length.into(), 0);
        self.stream.read_exact(&mut frame[8..]).await.unwrap();
        Message::decode(&frame).unwrap()
    }

    /// Through the handshake; back when the controller has answered an echo behind it.
    async fn introduce(&mut self, datapath_id: u64) {
        assert_eq!(self.receive().await.1, Message::Hello(Hello::ours()));
        self.send(1, &Message::Hello(Hello::ours())).await;
        let (xid, request) = self.receive().await;
        assert_eq!(request, Message::FeaturesRequest);
        let capabilities = Capabilities(0);
        let features = Features { datapath_id, n_buffers: 0, n_tables: 2, auxiliary_id: 0, capabilities };
        self.send(xid, &Message::FeaturesReply(features)).await;
        let (xid, request) = self.receive().await;
        assert_eq!(request, Message::GetConfigRequest);
        let config = SwitchConfig { fragments: FragmentHandling::Normal, miss_send_len: 0xffff };
        self.send(xid, &Message::GetConfigReply(config)).await;
        let (xid, request) = self.receive().await;
        assert_eq!(request, Message::BarrierRequest);
        self.send(xid, &Message::BarrierReply).await;
    }

    async fn echo(&mut self) {
        self.send(99, &Message::EchoRequest(b"there?".to_vec())).await;
        assert_eq!(self.receive().await, (99, Message::EchoReply(b"there?".to_vec())));
    }

    /// The end of its connection, after the controller has closed it.
    async fn ended(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        self.server.await.unwrap();
    }
}

fn listed(shared: &Shared) -> Vec<String> {
    shared.lock().list().into_iter().map(|switch| switch.datapath_id).collect()
}

#[tokio::test]
async fn listed_while_connected() {
    let (shared, shutdown) = (shared(), CancellationToken::new());
    let mut switch = FakeSwitch::connect("a", &shared, &shutdown);
    switch.introduce(1).await;
    switch.echo().await;
    assert_eq!(listed(&shared), ["0000000000000001"]);
    assert_eq!((shared.metrics.switches.get(), shared.metrics.connections.get()), (1, 1));
    drop(switch.stream);
    switch.server.await.unwrap();
    assert_eq!(listed(&shared).len(), 0);
    assert_eq!((shared.metrics.switches.get(), shared.metrics.connections.get()), (0, 0));
    assert_eq!(shared.metrics.connections_closed.with_label_values(&["peer"]).get(), 1);
}

#[tokio::test]
async fn malformed_input_is_answered_counted_and_leaves_the_others_alone() {
    let (shared, shutdown) = (shared(), CancellationToken::new());
    let mut good = FakeSwitch::connect("good", &shared, &shutdown);
    good.introduce(1).await;
    let mut bad = FakeSwitch::connect("bad", &shared, &shutdown);
    bad.introduce(2).await;

    for (bytes, reason, code) in [
        (&[4u8, 99, 0, 8, 0, 0, 0, 7][..], "unsupported", BadRequest::BadType),
        (&[4, 20, 0, 9, 0, 0, 0, 7, 0], "length", BadRequest::BadLen),
        (&[1, 2, 0, 8, 0, 0, 0, 7], "version", BadRequest::BadVersion),
    ] {
        bad.stream.write_all(bytes).await.unwrap();
        let (xid, answer) = bad.receive().await;
        let Message::Error(error) = answer else { panic!("{answer:?}") };
        assert_eq!((xid, error.kind, error.data.as_slice()), (7, ErrorKind::BadRequest(code), bytes));
        assert_eq!(shared.metrics.messages_refused.with_label_values(&[reason]).get(), 1, "{reason}");
    }
    bad.echo().await;

    // A length that ends the framing ends the connection, after the error.
    bad.stream.write_all(&[4, 2, 0, 0, 0, 0, 0, 8]).await.unwrap();
    let (xid, answer) = bad.receive().await;
    assert!(
        matches!(answer, Message::Error(error) if error.kind == ErrorKind::BadRequest(BadRequest::BadLen))
    );
    assert_eq!(xid, 8);
    bad.ended().await;
    good.echo().await;
    assert_eq!(listed(&shared), ["0000000000000001"]);
    assert_eq!(shared.metrics.connections_closed.with_label_values(&["framing"]).get(), 1);
}

#[tokio::test]
async fn the_newer_connection_of_a_switch_ends_the_older() {
    let (shared, shutdown) = (shared(), CancellationToken::new());
    let mut old = FakeSwitch::connect("a", &shared, &shutdown);
    old.introduce(1).await;
    old.echo().await;
    let mut new = FakeSwitch::connect("a", &shared, &shutdown);
    new.introduce(1).await;
    old.ended().await;
    new.echo().await;
    assert_eq!(listed(&shared), ["0000000000000001"]);
    assert_eq!(shared.metrics.connections_closed.with_label_values(&["replaced"]).get(), 1);
}

#[tokio::test]
async fn a_name_that_takes_another_ones_datapath_id_is_refused() {
    let (shared, shutdown) = (shared(), CancellationToken::new());
    let mut first = FakeSwitch::connect("a", &shared, &shutdown);
    first.introduce(1).await;
    first.echo().await;
    let mut thief = FakeSwitch::connect("b", &shared, &shutdown);
    thief.introduce(1).await;
    thief.ended().await;
    first.echo().await;
    assert_eq!(shared.lock().list()[0].peer, "a");
    assert_eq!(shared.metrics.connections_closed.with_label_values(&["datapath-id-held"]).get(), 1);
}

#[tokio::test]
async fn shutdown_closes_every_session() {
    let (shared, shutdown) = (shared(), CancellationToken::new());
    let mut switch = FakeSwitch::connect("a", &shared, &shutdown);
    switch.introduce(1).await;
    shutdown.cancel();
    switch.ended().await;
    assert_eq!(shared.metrics.connections_closed.with_label_values(&["shutdown"]).get(), 1);
}
