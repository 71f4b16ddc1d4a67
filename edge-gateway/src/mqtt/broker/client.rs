//! rumqttc's client, of MQTT 5.0 and of 3.1.1, as far as the door to an existing broker needs it.
//!
//! In 5.0 the broker is told the longest packet that is read, and must drop a longer one (MQTT-3.1.2-25); 3.1.1 has no word for it. How many
//! PUBLISHes may wait for their PUBACK is left to the broker's own setting, which mosquitto would replace by a Receive Maximum.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5 as wire5;
use rumqttc::{QoS, Request, StateError, mqttbytes, v5};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{BrokerConfig, FILTER, KEEP_ALIVE, OUTSTANDING_MAX, PACKET_BYTES_MAX};

/// Events between the task that polls rumqttc and the one that decides. Small: the queue that matters is the window.
const EVENTS_MAX: usize = 16;

/// Requests that wait for the poller: a PUBACK of everything outstanding and the SUBSCRIBE, so that none is ever refused for want of room.
const REQUESTS_MAX: usize = OUTSTANDING_MAX + EVENTS_MAX;

/// How long the broker may leave our bytes unread: rumqttc's own bound.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// 5.0.
    V5,
    /// 3.1.1.
    V4,
}

/// A PUBLISH of the broker.
#[derive(Debug, Clone)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
    packet_id: u16,
}

/// What has come.
#[derive(Debug)]
pub(super) enum News {
    /// CONNACK: it is up.
    Up,
    /// SUBACK; whether the subscription was granted.
    Subscribed(bool),
    Publish(Publish),
    /// What concerns rumqttc alone.
    Other,
}

/// Why a connection ended or didn't come up.
#[derive(Debug)]
pub(super) struct Failure {
    /// The broker sent a packet longer than what is read.
    pub(super) is_too_large: bool,
    pub(super) text: String,
}

/// The poller has gone, and its connection with it.
#[derive(Debug)]
pub(super) struct Gone;

enum Requests {
    V5(v5::AsyncClient),
    V4(mpsc::Sender<Request>),
}

/// One connection to the broker, from CONNECT on; closed when dropped.
pub(super) struct Client {
    requests: Requests,
    events: mpsc::Receiver<Result<News, Failure>>,
    poller: AbortHandle,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

impl Client {
    /// Begins to connect. `clean`: what the broker has kept for the session is thrown away.
    pub(super) fn connect(config: &BrokerConfig, protocol: Protocol, clean: bool) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (requests, poller) = match protocol {
            Protocol::V5 => {
                let (client, event_loop) = v5::AsyncClient::new(options_5(config, clean), REQUESTS_MAX);
                (Requests::V5(client), tokio::spawn(poll_5(event_loop, sender)))
            }
            Protocol::V4 => {
                let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
                // Its own queue of requests is not used.
                let event_loop = rumqttc::EventLoop::new(options_4(config, clean), 1);
                (Requests::V4(requests), tokio::spawn(poll_4(event_loop, receiver, sender)))
            }
        };
        Self { requests, events, poller: poller.abort_handle() }
    }

    /// Asks for [`FILTER`] at QoS 1. `renews`: retained messages come only where the broker has lost the subscription, which 5.0 alone can say.
    pub(super) fn subscribe(&self, renews: bool) -> Result<(), Gone> {
        match &self.requests {
            Requests::V5(client) => {
                let mut filter = wire5::Filter::new(FILTER, QoS5::AtLeastOnce);
                if renews {
                    filter.retain_forward_rule = wire5::RetainForwardRule::OnNewSubscribe;
                }
                client.try_subscribe_many([filter]).map_err(|_gone| Gone)
            }
            Requests::V4(requests) => {
                let subscribe = v4::Subscribe::new(FILTER, QoS::AtLeastOnce);
                requests.try_send(Request::Subscribe(subscribe)).map_err(|_gone| Gone)
            }
        }
    }

    /// PUBACK.
    pub(super) fn acknowledge(&self, publish: &Publish) -> Result<(), Gone> {
        match &self.requests {
            Requests::V5(client) => {
                let qos = match publish.qos {
                    QoS::AtMostOnce => QoS5::AtMostOnce,
                    QoS::AtLeastOnce => QoS5::AtLeastOnce,
                    QoS::ExactlyOnce => QoS5::ExactlyOnce,
                };
                let publish = wire5::Publish { qos, pkid: publish.packet_id, ..wire5::Publish::default() };
                client.try_ack(&publish).map_err(|_gone| Gone)
            }
            Requests::V4(requests) => {
                let request = match publish.qos {
                    QoS::AtMostOnce => return Ok(()),
                    QoS::AtLeastOnce => Request::PubAck(v4::PubAck::new(publish.packet_id)),
                    QoS::ExactlyOnce => Request::PubRec(v4::PubRec::new(publish.packet_id)),
                };
                requests.try_send(request).map_err(|_gone| Gone)
            }
        }
    }

    /// DISCONNECT, behind all acknowledgements; then the broker closes.
    pub(super) fn disconnect(&self) -> Result<(), Gone> {
        match &self.requests {
            Requests::V5(client) => client.try_disconnect().map_err(|_gone| Gone),
            Requests::V4(requests) => {
                requests.try_send(Request::Disconnect(v4::Disconnect)).map_err(|_gone| Gone)
            }
        }
    }

    /// What comes next; none where the polling task panicked: rumqttc met something that it takes for impossible. May be dropped and called
    /// again.
    pub(super) async fn next(&mut self) -> Option<Result<News, Failure>> {
        self.events.recv().await
    }
}

fn address(config: &BrokerConfig) -> (&str, rumqttc::Transport) {
    match config.socket.as_ref().and_then(|path| path.to_str()) {
        Some(socket) => (socket, rumqttc::Transport::unix()),
        None => (&config.host, rumqttc::Transport::tcp()),
    }
}

fn options_5(config: &BrokerConfig, clean: bool) -> v5::MqttOptions {
    let (host, transport) = address(config);
    let mut options = v5::MqttOptions::new(&config.client_id, host, config.port);
    options.set_transport(transport).set_keep_alive(KEEP_ALIVE).set_manual_acks(true);
    // As in 3.1.1 the session is kept until it is thrown away.
    options.set_clean_start(clean).set_session_expiry_interval(Some(u32::MAX));
    options.set_max_packet_size(u32::try_from(PACKET_BYTES_MAX).ok());
    // Nothing is published to the broker; rumqttc would hold places for 65,535.
    options.set_outgoing_inflight_upper_limit(1);
    if let Some((username, password)) = &config.login {
        options.set_credentials(username, password);
    }
    options
}

fn options_4(config: &BrokerConfig, clean: bool) -> rumqttc::MqttOptions {
    let (host, transport) = address(config);
    let mut options = rumqttc::MqttOptions::new(&config.client_id, host, config.port);
    options.set_transport(transport).set_keep_alive(KEEP_ALIVE).set_manual_acks(true);
    options.set_clean_session(clean);
    options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    if let Some((username, password)) = &config.login {
        options.set_credentials(username, password);
    }
    options
}

/// Polls rumqttc in a task of its own, since its `poll` must not be dropped half-way: a packet on its way out would be lost.
async fn poll_5(mut event_loop: v5::EventLoop, sender: mpsc::Sender<Result<News, Failure>>) {
    let failure = loop {
        match event_loop.poll().await {
            Ok(event) => {
                if sender.send(Ok(news_5(event))).await.is_err() {
                    return;
                }
            }
            Err(error) => break failure_5(&error),
        }
    };
    let read_along = std::mem::take(&mut event_loop.state.events);
    // Its connection is closed already: from here on nothing can be acknowledged, and whoever tries is told so.
    drop(event_loop);
    // At QoS 0 it does not come again. After a packet that was too long, only that counts, and at once.
    if !failure.is_too_large {
        for event in read_along {
            if sender.send(Ok(news_5(event))).await.is_err() {
                return;
            }
        }
    }
    sender.send(Err(failure)).await.ok();
}

/// A connection of 3.1.1. rumqttc's `poll` makes it, and no more: it would read up to ten packets at once, and close at one that is too long
/// before those in front of it are told or acknowledged. That one would then be behind the same ones over each new connection.
async fn poll_4(
    mut event_loop: rumqttc::EventLoop,
    mut requests: mpsc::Receiver<Request>,
    sender: mpsc::Sender<Result<News, Failure>>,
) {
    let news = event_loop.poll().await.map(news_4).map_err(|error| failure_4(&error));
    let is_up = news.is_ok();
    if sender.send(news).await.is_err() || !is_up {
        return;
    }
    let Err(error) = drive_4(&mut event_loop, &mut requests, &sender).await else { return };
    let failure = failure_4(&rumqttc::ConnectionError::MqttState(error));
    let goes_on = failure.is_too_large;
    if sender.send(Err(failure)).await.is_err() || !goes_on {
        return;
    }
    // No more news. What is acknowledged is still written, until the client is dropped.
    drop(sender);
    while let Some(request) = requests.recv().await {
        if write_4(&mut event_loop, request).await.is_err() {
            return;
        }
    }
}

/// Writes before it reads, and reads a packet only where there is room for its news. Returns without error where nobody wants them any longer.
async fn drive_4(
    event_loop: &mut rumqttc::EventLoop,
    requests: &mut mpsc::Receiver<Request>,
    sender: &mpsc::Sender<Result<News, Failure>>,
) -> Result<(), StateError> {
    let mut pings = interval(KEEP_ALIVE);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let Some(network) = event_loop.network.as_mut() else { return Ok(()) };
        tokio::select! {
            biased;
            request = requests.recv() => match request {
                Some(request) => write_4(event_loop, request).await?,
                None => return Ok(()),
            },
            _ = pings.tick() => write_4(event_loop, Request::PingReq(v4::PingReq)).await?,
            // May be dropped half-way: what was read stays in rumqttc's buffer.
            read = async {
                match sender.reserve().await {
                    Ok(room) => Some((room, network.read().await)),
                    Err(_closed) => None,
                }
            } => {
                let Some((room, packet)) = read else { return Ok(()) };
                let answer = event_loop.state.handle_incoming_packet(packet?)?;
                if let Some(event) = event_loop.state.events.pop_front() {
                    room.send(Ok(news_4(event)));
                }
                say_4(event_loop, answer).await?;
            }
        }
    }
}

async fn write_4(event_loop: &mut rumqttc::EventLoop, request: Request) -> Result<(), StateError> {
    let packet = event_loop.state.handle_outgoing_packet(request)?;
    say_4(event_loop, packet).await
}

async fn say_4(event_loop: &mut rumqttc::EventLoop, packet: Option<v4::Packet>) -> Result<(), StateError> {
    // What it notes of its own doing concerns nobody.
    event_loop.state.events.clear();
    let (Some(network), Some(packet)) = (event_loop.network.as_mut(), packet) else { return Ok(()) };
    let written = async {
        network.write(packet).await?;
        network.flush().await
    };
    match timeout(WRITE_TIMEOUT, written).await {
        Ok(written) => written,
        Err(_elapsed) => Err(StateError::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

fn news_5(event: v5::Event) -> News {
    let v5::Event::Incoming(packet) = event else { return News::Other };
    match packet {
        wire5::Packet::ConnAck(_) => News::Up,
        wire5::Packet::SubAck(ack) => {
            let granted = |code| matches!(code, &wire5::SubscribeReasonCode::Success(_));
            News::Subscribed(ack.return_codes.iter().all(granted))
        }
        wire5::Packet::Publish(publish) => News::Publish(Publish {
            // What is no text names no device.
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            qos: match publish.qos {
                QoS5::AtMostOnce => QoS::AtMostOnce,
                QoS5::AtLeastOnce => QoS::AtLeastOnce,
                QoS5::ExactlyOnce => QoS::ExactlyOnce,
            },
            packet_id: publish.pkid,
        }),
        wire5::Packet::Connect(..)
        | wire5::Packet::Auth(_)
        | wire5::Packet::PubAck(_)
        | wire5::Packet::PubRec(_)
        | wire5::Packet::PubRel(_)
        | wire5::Packet::PubComp(_)
        | wire5::Packet::Subscribe(_)
        | wire5::Packet::Unsubscribe(_)
        | wire5::Packet::UnsubAck(_)
        | wire5::Packet::PingReq(_)
        | wire5::Packet::PingResp(_)
        | wire5::Packet::Disconnect(_) => News::Other,
    }
}

fn news_4(event: rumqttc::Event) -> News {
    let rumqttc::Event::Incoming(packet) = event else { return News::Other };
    match packet {
        v4::Packet::ConnAck(_) => News::Up,
        v4::Packet::SubAck(ack) => {
            News::Subscribed(!ack.return_codes.contains(&v4::SubscribeReasonCode::Failure))
        }
        v4::Packet::Publish(publish) => News::Publish(Publish {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            packet_id: publish.pkid,
        }),
        v4::Packet::Connect(_)
        | v4::Packet::PubAck(_)
        | v4::Packet::PubRec(_)
        | v4::Packet::PubRel(_)
        | v4::Packet::PubComp(_)
        | v4::Packet::Subscribe(_)
        | v4::Packet::Unsubscribe(_)
        | v4::Packet::UnsubAck(_)
        | v4::Packet::PingReq
        | v4::Packet::PingResp
        | v4::Packet::Disconnect => News::Other,
    }
}

fn failure_5(error: &v5::ConnectionError) -> Failure {
    use v5::mqttbytes::Error::PayloadSizeLimitExceeded;
    let is_too_large = matches!(
        error,
        v5::ConnectionError::MqttState(v5::StateError::Deserialization(PayloadSizeLimitExceeded { .. }))
    );
    Failure { is_too_large, text: error.to_string() }
}

fn failure_4(error: &rumqttc::ConnectionError) -> Failure {
    use mqttbytes::Error::PayloadSizeLimitExceeded;
    let is_too_large = matches!(
        error,
        rumqttc::ConnectionError::MqttState(StateError::Deserialization(PayloadSizeLimitExceeded(_)))
    );
    Failure { is_too_large, text: error.to_string() }
}
