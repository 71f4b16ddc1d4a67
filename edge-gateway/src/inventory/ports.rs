//! Taps for the sensor ports that there are: a port may come later, go, or lead to another interface.

use std::collections::BTreeSet;
use std::time::Duration;

use caregate_protocol::datapath::{Mode, Role};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::tap::{Shared, Tap};
use crate::datapath::Datapath;

/// How often a port without a tap is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Hears every sensor port until `stop`.
pub async fn listen(datapath: Datapath, shared: Shared, stop: CancellationToken) {
    let mut welcome = datapath.welcome();
    let (mut taps, mut tapped) = (JoinSet::new(), BTreeSet::new());
    loop {
        let ports = datapath.ports().into_iter().filter(|port| {
            port.role == Role::Sensor && port.mode != Mode::None && !tapped.contains(&port.number)
        });
        for number in ports.map(|port| port.number).collect::<Vec<_>>() {
            match open(&datapath, number).await {
                Ok(tap) => {
                    info!(port = number, "the device inventory hears this port");
                    tapped.insert(number);
                    let (shared, stop) = (shared.clone(), stop.clone());
                    taps.spawn(async move {
                        tap.run(shared, stop).await;
                        number
                    });
                }
                Err(error) => debug!(port = number, %error, "no packet socket for the device inventory"),
            }
        }
        tokio::select! {
            changed = welcome.changed() => if changed.is_err() { return },
            Some(ended) = taps.join_next() => match ended {
                Ok(number) => drop(tapped.remove(&number)),
                // A bug in what reads frames; which port it was is not said, so all are tried again.
                Err(_panicked) => { tapped.clear(); taps.abort_all(); }
            },
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn open(datapath: &Datapath, port: u32) -> anyhow::Result<Tap> {
    Ok(Tap::new(datapath.packet_socket(port).await?, port)?)
}
