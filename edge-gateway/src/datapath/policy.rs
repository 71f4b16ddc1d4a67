//! Tells the helper who is bound: table 0 is made of verified policy and of nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use caregate_protocol::datapath::{DEVICES_MAX, Device, FLOOR_MAX, Floor, OPEN_PORTS_MAX, OpenPort, Policy};
use caregate_protocol::policy::BoundDevice;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Datapath, DatapathError};

/// IP's number of TCP.
pub const TCP: u8 = 6;
/// IP's number of UDP.
pub const UDP: u8 = 17;

/// What of table 0 does not change while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed {
    /// The gateway's own ports that bound sensors may reach.
    pub open: Vec<OpenPort>,
    /// Core and controllers, whose frames no rule drops.
    pub floor: Vec<Floor>,
}

impl Fixed {
    /// Opens a TCP port to bound sensors.
    pub fn open_tcp(&mut self, port: u16) {
        let open = OpenPort { protocol: TCP, port };
        if !self.open.contains(&open) && self.open.len() < OPEN_PORTS_MAX {
            self.open.push(open);
        }
    }

    /// Puts a peer under the floor.
    pub fn keep(&mut self, protocol: u8, peer: SocketAddr) {
        let floor = Floor { protocol, address: peer.ip(), port: peer.port() };
        if !self.floor.contains(&floor) && self.floor.len() < FLOOR_MAX {
            self.floor.push(floor);
        }
    }

    /// With the devices that are bound. One whose number or address another has is left out: its frames are a stranger's.
    #[must_use]
    pub fn with(&self, bound: &[BoundDevice]) -> Policy {
        let mut devices: Vec<Device> = Vec::new();
        for station in bound.iter().filter_map(|device| device.station) {
            let mac = station.mac.0;
            let index = u16::try_from(station.index).ok().filter(|index| usize::from(*index) < DEVICES_MAX);
            let is_single = mac[0] & 1 == 0 && mac != [0; 6];
            match index {
                Some(index) if is_single && devices.iter().all(|device| device.mac != mac) => {
                    devices.push(Device { index, mac });
                }
                _ => warn!(index = station.index, "a bound device's address can't be admitted"),
            }
        }
        devices.truncate(DEVICES_MAX);
        Policy { devices, ports: self.open.clone(), floor: self.floor.clone() }
    }
}

/// Puts in force what `bound` says, now and at each change, until `stop` or until it can't change any more.
pub async fn run(
    datapath: Datapath,
    mut bound: watch::Receiver<Arc<Vec<BoundDevice>>>,
    fixed: Fixed,
    stop: CancellationToken,
) {
    loop {
        let policy = fixed.with(&bound.borrow_and_update());
        let devices = policy.devices.len();
        match datapath.set_policy(policy).await {
            Ok(()) => info!(devices, "bound devices are admitted"),
            Err(DatapathError::Away) => info!(devices, "bound devices are admitted when the helper is back"),
            Err(failure) => error!(%failure, "bound devices are not admitted"),
        }
        tokio::select! {
            changed = bound.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::{DeviceId, PatientId};
    use caregate_protocol::policy::{Classes, Mac, Station};

    use super::*;

    fn bound(index: u32, mac: [u8; 6]) -> BoundDevice {
        BoundDevice {
            device: DeviceId::new("ecg-1").unwrap(),
            patient: PatientId([0; 16]),
            classes: Classes::default(),
            station: Some(Station { mac: Mac(mac), index }),
        }
    }

    #[test]
    fn devices_with_an_address_of_their_own_are_admitted() {
        let mut fixed = Fixed::default();
        fixed.open_tcp(1883);
        fixed.open_tcp(1883);
        fixed.keep(UDP, "192.0.2.1:4433".parse().unwrap());
        let unheard = BoundDevice { station: None, ..bound(9, [2; 6]) };
        let devices = [
            bound(0, [2, 0, 0, 0, 0, 1]),
            bound(1, [2, 0, 0, 0, 0, 1]),
            bound(2, [3, 0, 0, 0, 0, 1]),
            bound(300, [2, 0, 0, 0, 0, 3]),
            bound(3, [2, 0, 0, 0, 0, 4]),
            unheard,
        ];
        let policy = fixed.with(&devices);
        let admitted =
            [(0, [2, 0, 0, 0, 0, 1]), (3, [2, 0, 0, 0, 0, 4])].map(|(index, mac)| Device { index, mac });
        assert_eq!(policy.devices, admitted);
        assert_eq!(policy.ports, [OpenPort { protocol: TCP, port: 1883 }]);
        assert_eq!(policy.floor.len(), 1);
    }
}
