//! Each daemon's configuration file.

use std::fmt::Write as _;

use super::{DATAPATH_ID, Deployment, Domain, GATEWAY, Identities, USER};
use crate::demo::network::{Network, SENSOR_PORT, Service, UPLINK};
use crate::pki::{DeviceKey, Issued};

/// First UDP port of the lanes.
const LANE_PORTS: u16 = 7400;

/// What the files need beside the deployment.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    pub(super) network: &'a Network,
    pub(super) identities: &'a Identities,
    pub(super) device_key: DeviceKey,
    pub(super) credentials: &'a str,
    /// Salt and hash.
    pub(super) access_code: (&'a str, &'a str),
    pub(super) password_hash: &'a str,
    /// The core's part on its store; empty where that is a file.
    pub(super) nats: String,
}

impl Deployment {
    /// Writes all of them.
    pub(super) fn write_configs(&self, inputs: &Inputs<'_>) -> anyhow::Result<()> {
        self.write("edge-gateway", &self.gateway(inputs))?;
        self.write("core-cloud", &self.core(inputs))?;
        self.write("sdn-controller", &self.controller(inputs))?;
        let beds = self.beds()?;
        let (hospital, clinic) = (&self.ledger.hospital, &self.ledger.clinic);
        self.write("clinician-feed", &self.feed(inputs, hospital, &inputs.identities.hospital, &beds))?;
        self.write("clinic-feed", &self.feed(inputs, clinic, &inputs.identities.clinic, ""))?;
        if let Network::Namespaces { .. } = inputs.network {
            self.write("datapathd", &self.datapathd())?;
        }
        Ok(())
    }

    fn gateway(&self, inputs: &Inputs<'_>) -> String {
        let (network, dir) = (inputs.network, &self.dir);
        let datapath = match network {
            Network::Namespaces { .. } => format!("[datapath]\nhelper = {:?}\n", dir.join("datapath.sock")),
            Network::Loopback { .. } => String::new(),
        };
        let off = match network {
            Network::Namespaces { .. } => "",
            Network::Loopback { .. } => "datapath = \"off\"\n",
        };
        let (salt, sha256) = inputs.access_code;
        format!(
            "data = {data:?}\nadmin = \"systemd:0\"\ndevice_key = {device:?}\n{off}{identity}\n\
             [core]\naddress = \"{core}\"\nname = \"core-1\"\nlane_ports = {LANE_PORTS}\n\n\
             [policy]\nenrolment = {enrolment:?}\ncontroller = {{ address = \"{policy}\", name = \"controller-1\" }}\n\n\
             [controller]\naddress = \"{openflow}\"\nname = \"controller-1\"\ndatapath_id = \"{DATAPATH_ID}\"\n\n\
             [local]\nlisten = \"systemd:1\"\nrevoke_keys = {revoke_keys:?}\n\
             access_code = {{ salt = \"{salt}\", sha256 = \"{sha256}\" }}\n\n\
             {datapath}\n[mqtt]\nlisten = \"{mqtt}\"\n{credentials}\n{watched}",
            data = dir.join("gateway"),
            device = inputs.device_key.key,
            identity = identity(&inputs.identities.gateway),
            core = network.core_for_gateway(),
            enrolment = dir.join("enrolment.toml"),
            policy = network.listen(Service::Policy),
            openflow = network.listen(Service::OpenFlow),
            revoke_keys = dir.join("revoke-keys.toml"),
            mqtt = network.listen(Service::Mqtt),
            credentials = inputs.credentials,
            watched = self.watched(),
        )
    }

    /// So that NEWS2 is scored without anybody having to say so.
    fn watched(&self) -> String {
        let adult =
            |patient: &str| format!("[[watch.patient]]\npatient = \"{patient}\"\ncategory = \"adult\"\n");
        self.patients.iter().map(|patient| adult(&patient.patient)).collect()
    }

    fn core(&self, inputs: &Inputs<'_>) -> String {
        let feed = |name: &str, domain: &Domain| {
            format!("[[feed]]\nname = \"{name}\"\nrecipients = [\"{}\"]\n", domain.recipient())
        };
        format!(
            "listen = \"{listen}\"\nadmin = \"systemd:0\"\ndata = {data:?}\n{identity}\n\
             [[gateway]]\nname = \"{GATEWAY}\"\ndevice_keys = [\"{signer}\"]\n{hospital}{clinic}{nats}",
            nats = inputs.nats,
            listen = inputs.network.listen(Service::Quic),
            data = self.dir.join("core"),
            identity = identity(&inputs.identities.core),
            signer = inputs.device_key.public,
            hospital = feed("hospital-1", &self.ledger.hospital),
            clinic = feed("clinic-1", &self.ledger.clinic),
        )
    }

    fn controller(&self, inputs: &Inputs<'_>) -> String {
        let network = inputs.network;
        format!(
            "listen = \"{openflow}\"\nadmin = \"systemd:0\"\ndata = {data:?}\n{identity}\n\
             [[switch]]\nname = \"{GATEWAY}\"\ndatapath_id = \"{DATAPATH_ID}\"\n\n\
             [rest]\nlisten = \"{rest}\"\n\n[dashboard]\nlisten = \"systemd:1\"\n\n\
             [policy]\nlisten = \"{policy}\"\n\n\
             [ledger]\n{ledger}gateway_salt = {salt:?}\n\n[lanes]\nports = {LANE_PORTS}\n",
            openflow = network.listen(Service::OpenFlow),
            data = self.dir.join("controller"),
            identity = identity(&inputs.identities.controller),
            rest = network.listen(Service::Rest),
            policy = network.listen(Service::Policy),
            ledger = self.ledger_keys(),
            salt = self.ledger.gateway_salt,
        )
    }

    fn feed(&self, inputs: &Inputs<'_>, domain: &Domain, issued: &Issued, beds: &str) -> String {
        format!(
            "listen = \"systemd:0\"\nadmin = \"systemd:1\"\nrecipient = \"{recipient}\"\nhpke_key = {hpke:?}\njournal = {journal:?}\n{identity}\n\
             [core]\naddress = \"{core}\"\nname = \"core-1\"\n\n\
             [ledger]\n{ledger}domain_key = {key:?}\n\n\
             [[gateway]]\nname = \"{GATEWAY}\"\ndevice_keys = [\"{signer}\"]\n\
             [[user]]\nname = \"{USER}\"\npassword_hash = \"{hash}\"\n{beds}",
            recipient = domain.recipient(),
            hpke = domain.hpke,
            identity = identity(issued),
            core = inputs.network.listen(Service::Quic),
            ledger = self.ledger_keys(),
            key = domain.key,
            journal = self.dir.join(format!("{}.journal", domain.recipient())),
            signer = inputs.device_key.public,
            hash = inputs.password_hash,
        )
    }

    fn beds(&self) -> anyhow::Result<String> {
        let mut beds = String::new();
        for (at, patient) in self.patients.iter().enumerate() {
            write!(
                beds,
                "\n[[bed]]\npatient = \"{}\"\nbed = \"Bed {}\"\ncategory = \"adult\"\nrelationship = \"{}\"\n",
                patient.patient,
                at + 1,
                patient.relationship
            )?;
        }
        Ok(beds)
    }

    fn ledger_keys(&self) -> String {
        let ledger = &self.ledger;
        format!(
            "rpc = \"{}\"\nchain_id = {}\ncontract = \"{}\"\n",
            ledger.rpc, ledger.chain_id, ledger.contract
        )
    }

    fn datapathd(&self) -> String {
        format!(
            "socket = {socket:?}\nuser = \"0\"\nadmin = \"systemd:0\"\nsensor_ports = [\"{SENSOR_PORT}\"]\n\
             uplinks = [\"{UPLINK}\"]\npin = {pin:?}\n",
            socket = self.dir.join("datapath.sock"),
            pin = self.dir.join("bpf/caregate"),
        )
    }
}

fn identity(issued: &Issued) -> String {
    format!(
        "identity = {{ certificate = {:?}, key = {:?}, ca = {:?} }}\n",
        issued.certificate, issued.key, issued.ca
    )
}
