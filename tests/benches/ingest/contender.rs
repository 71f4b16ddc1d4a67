//! Ours or the peer's, as what is common to both.

use std::net::SocketAddr;

use crate::bridge::{Bridge, Durability};
use crate::load::{self, Body, Client, End, Pace};
use crate::process::{Process, until};
use crate::site::{self, Site};
use crate::subscriber::Subscriber;

pub(crate) enum Contender {
    Ours(Box<Site>),
    Bridge(Box<Bridge>),
}

impl Contender {
    pub(crate) fn ours(devices: usize) -> anyhow::Result<Self> {
        Ok(Self::Ours(Box::new(Site::start(devices)?)))
    }

    pub(crate) fn bridge(durability: Durability) -> anyhow::Result<Self> {
        Ok(Self::Bridge(Box::new(Bridge::start(durability)?)))
    }

    /// Where sensors publish.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        match self {
            Self::Ours(site) => site.mqtt,
            Self::Bridge(bridge) => bridge.mqtt,
        }
    }

    /// In the home, and at the other end.
    pub(crate) fn ends(&self) -> (&Process, &Process) {
        match self {
            Self::Ours(site) => (&site.gateway, &site.core),
            Self::Bridge(bridge) => (&bridge.home, &bridge.far),
        }
    }

    pub(crate) fn ends_mut(&mut self) -> (&mut Process, &mut Process) {
        match self {
            Self::Ours(site) => (&mut site.gateway, &mut site.core),
            Self::Bridge(bridge) => (&mut bridge.home, &mut bridge.far),
        }
    }

    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        let (home, far) = self.ends();
        Ok(home.cpu_s()? + far.cpu_s()?)
    }

    /// A subscriber to whom a first message has come.
    pub(crate) fn subscribe(&self, names: bool) -> anyhow::Result<Subscriber> {
        let subscriber = match self {
            Self::Ours(site) => Subscriber::of_feed(site.page, names)?,
            Self::Bridge(bridge) => Subscriber::of_broker(bridge.subscribe, names)?,
        };
        let one = site::clients(1, Body::Numeric);
        until("something comes to the subscriber", || {
            let sent = load::run(self.mqtt(), &one, Pace::Window(1), End::Count(1), true);
            std::thread::sleep(std::time::Duration::from_millis(200));
            sent.is_ok() && subscriber.count() > 0
        })?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        subscriber.forget();
        Ok(subscriber)
    }

    /// The same at the topics of events.
    pub(crate) fn alarm(&self) -> Vec<Client> {
        let (id, body) = (site::ALARM.to_owned(), Body::Event);
        vec![Client { topic: site::topic(&id, body), id, password: site::SECRET, body }]
    }
}
