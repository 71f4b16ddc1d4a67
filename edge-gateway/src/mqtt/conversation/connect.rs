//! CONNECT: what is asked, what is granted, what is refused.

use std::time::Duration;

use caregate_protocol::id::DeviceId;

use super::{Action, Client, CloseReason, ConnectRefusal, Conversation, Phase};
use crate::mqtt::access::own_tree;
use crate::mqtt::hub::{Capacity, ConnectionNumber, Hub, Join, SessionKey};
use crate::mqtt::limits::{CLIENT_ID_BYTES_MAX, SESSION_EXPIRY_MAX, TOPIC_ALIASES_MAX, TOPIC_BYTES_MAX};
use crate::mqtt::window::Window;
use crate::mqtt::wire::{ConnAck, Connect, Packet, Properties, Reason, Version};

impl Conversation {
    pub(super) fn handle_connect(
        &mut self,
        connect: Box<Connect>,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        self.version = connect.version;
        self.packet_size_max = connect.properties.packet_size_max;
        let len = connect.client_id.len();
        let nameless = len == 0 && !connect.clean_start && self.version == Version::V4;
        if nameless || len > CLIENT_ID_BYTES_MAX {
            return self.refuse(ConnectRefusal::ClientId, now, hub, out);
        }
        if connect.properties.auth_method.is_some() {
            return self.refuse(ConnectRefusal::AuthMethod, now, hub, out);
        }
        if self.version == Version::V5 {
            // One more than Receive Maximum is taken in, to see that a client breaks it; in 3.1.1, which has none, reading stops.
            let count_max = self.limits.inflight_max + 1;
            self.outstanding = Window::new(count_max, self.limits.inflight_bytes_max);
        }
        self.phase = Phase::Admitting(connect.clone());
        out.push(Action::Admit(connect));
    }

    /// Takes in the answer to [`Action::Admit`]: whose credentials were shown, and this connection's number.
    pub fn handle_admission(
        &mut self,
        admission: Result<(DeviceId, ConnectionNumber), ConnectRefusal>,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        let before = std::mem::replace(&mut self.phase, Phase::AwaitConnect { until: now });
        let Phase::Admitting(connect) = before else {
            self.phase = before;
            return;
        };
        let joined = admission.and_then(|(device, number)| self.join(*connect, device, number, now, hub));
        match joined {
            Ok((client, ack)) => {
                self.phase = Phase::Up { client, heard: now };
                out.push(Action::Send(Packet::ConnAck(ack)));
            }
            Err(refusal) => self.refuse(refusal, now, hub, out),
        }
    }

    /// Makes or resumes the session, and says what is granted (§3.2.2.3).
    fn join(
        &self,
        connect: Connect,
        device: DeviceId,
        number: ConnectionNumber,
        now: Duration,
        hub: &mut Hub,
    ) -> Result<(Client, ConnAck), ConnectRefusal> {
        let own = |topic: &str| own_tree(&device, topic).is_some() && topic.len() <= TOPIC_BYTES_MAX;
        if connect.will.as_ref().is_some_and(|will| !own(&will.topic)) {
            return Err(ConnectRefusal::ForeignWill);
        }
        let asked = &connect.properties;
        let mut granted = Properties::default();
        let mut client_id = connect.client_id.clone();
        if client_id.is_empty() {
            client_id = format!("assigned-{number}");
            granted.assigned_client_id = Some(client_id.clone());
        }
        let expiry = session_expiry(&connect);
        if asked.session_expiry.is_some_and(|asked| Duration::from_secs(u64::from(asked)) > expiry) {
            granted.session_expiry = Some(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX));
        }
        let mut keep_alive = connect.keep_alive;
        let keep_alive_max = self.limits.keep_alive_s_max;
        if self.version == Version::V5
            && keep_alive_max > 0
            && (keep_alive == 0 || keep_alive > keep_alive_max)
        {
            keep_alive = keep_alive_max;
            granted.server_keep_alive = Some(keep_alive);
        }
        granted.receive_max = Some(u16::try_from(self.limits.inflight_max).unwrap_or(u16::MAX));
        granted.packet_size_max = Some(u32::try_from(self.limits.packet_bytes_max).unwrap_or(u32::MAX));
        granted.topic_alias_max = Some(TOPIC_ALIASES_MAX);
        let capacity = Capacity {
            version: self.version,
            receive_max: asked.receive_max.unwrap_or(u16::MAX),
            topic_alias_max: asked.topic_alias_max.unwrap_or(0),
            packet_size_max: asked.packet_size_max,
        };
        let key = SessionKey { device, client_id };
        let join =
            Join { key: key.clone(), clean_start: connect.clean_start, expiry, will: connect.will, capacity };
        let session_present = hub.join(join, number, now).map_err(|_full| ConnectRefusal::Full)?;
        let silence_max = Duration::from_millis(u64::from(keep_alive) * 1500);
        let silence_max = Some(silence_max).filter(|time| !time.is_zero());
        let client = Client { key, number, silence_max, keeps_session: !expiry.is_zero() };
        Ok((client, ConnAck { session_present, reason: Reason::SUCCESS, properties: granted }))
    }

    pub(super) fn refuse(
        &mut self,
        refusal: ConnectRefusal,
        now: Duration,
        hub: &mut Hub,
        out: &mut Vec<Action>,
    ) {
        let reason = refusal.reason(self.version);
        let ack = ConnAck { session_present: false, reason, properties: Properties::default() };
        out.push(Action::Send(Packet::ConnAck(ack)));
        self.close(CloseReason::ConnectRefused(refusal), now, hub, out);
    }
}

/// How long the session is to be kept: what 5.0 asks for, or with `CleanSession` 0 of 3.1.1 as long as this server does.
fn session_expiry(connect: &Connect) -> Duration {
    match connect.version {
        Version::V4 if connect.clean_start => Duration::ZERO,
        Version::V4 => SESSION_EXPIRY_MAX,
        Version::V5 => {
            let seconds = u64::from(connect.properties.session_expiry.unwrap_or(0));
            Duration::from_secs(seconds).min(SESSION_EXPIRY_MAX)
        }
    }
}
