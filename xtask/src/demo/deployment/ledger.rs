//! The ledger: the embedded node's chain, and who takes part in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use caregate_host::key_file::{self, Existing};
use serde::Deserialize;
use serde_json::Value;

use crate::demo::ctl::{Ctl, text};
use crate::demo::network::{Network, Place, Service};
use crate::pki::HpkeKey;

/// EIP-155; no public chain has it.
const CHAIN_ID: u64 = 20_261_125;

/// A hospital's identity on the ledger.
#[derive(Debug, Clone)]
pub(in crate::demo) struct Domain {
    /// Its address, which is its recipient id.
    pub(in crate::demo) address: String,
    /// File of the address's key.
    pub(in crate::demo) key: PathBuf,
    /// Files of the HPKE key.
    pub(in crate::demo) hpke: PathBuf,
    hpke_public: String,
}

impl Domain {
    fn make(dir: &Path, name: &str, ctl: Ctl<'_>) -> anyhow::Result<Self> {
        let hpke = HpkeKey::generate(&dir.join(format!("{name}.hpke")), Existing::Keep)?;
        let key = dir.join(format!("{name}.ledger.key"));
        let made = ctl.call(None, &["participant", "new", "--out", &key.display().to_string()])?.done()?;
        Ok(Self { address: text(&made, "address")?, key, hpke: hpke.key, hpke_public: hpke.public })
    }

    /// Its id as segments, wraps and configurations have it.
    pub(in crate::demo) fn recipient(&self) -> &str {
        self.address.trim_start_matches("0x")
    }
}

/// What `ledger-node --print-deployment` says.
#[derive(Debug, Deserialize)]
struct Printed {
    chain_id: u64,
    contract: String,
    validators: Vec<String>,
}

/// The ledger and its domains.
#[derive(Debug, Clone)]
pub(in crate::demo) struct Ledger {
    pub(in crate::demo) chain_id: u64,
    pub(in crate::demo) contract: String,
    pub(super) validators: Vec<String>,
    /// Its JSON-RPC.
    pub(in crate::demo) rpc: String,
    governor: PathBuf,
    /// File of what gateways' names are salted with.
    pub(super) gateway_salt: PathBuf,
    /// Whom the patients trust.
    pub(in crate::demo) hospital: Domain,
    /// Whom nobody consented to; it may break the glass.
    pub(in crate::demo) clinic: Domain,
}

impl Ledger {
    /// Makes the chain, and the domains' keys.
    pub(super) fn make(dir: &Path, network: &Network, ctl: Ctl<'_>, node: &Path) -> anyhow::Result<Self> {
        let governor = dir.join("governor.key");
        let made =
            ctl.call(None, &["participant", "new", "--out", &governor.display().to_string()])?.done()?;
        let gateway_salt = dir.join("gateway.salt");
        let out = gateway_salt.display().to_string();
        ctl.call(None, &["participant", "gateway-salt", "--out", &out])?.done()?;
        let config = format!(
            "listen = \"{listen}\"\nadmin = \"systemd:0\"\ndata = {data:?}\nsealing_key = {key:?}\n\
             chain_id = {CHAIN_ID}\ngovernors = [\"{governor}\"]\nthreshold = 1\ndelay_s = 0\n",
            listen = network.listen(Service::Rpc),
            data = dir.join("ledger"),
            key = dir.join("sealing.key"),
            governor = text(&made, "address")?,
        );
        let file = dir.join("ledger-node.toml");
        key_file::write(&file, config.as_bytes(), Existing::Keep)?;
        let printed = print_deployment(node, &file)?;
        Ok(Self {
            chain_id: printed.chain_id,
            contract: printed.contract,
            validators: printed.validators,
            rpc: format!("http://{}", network.listen(Service::Rpc)),
            governor,
            gateway_salt,
            hospital: Domain::make(dir, "hospital-1", ctl)?,
            clinic: Domain::make(dir, "clinic-1", ctl)?,
        })
    }

    /// Registers both domains, the second with the right to break the glass, and their HPKE keys.
    pub(in crate::demo) fn register(&self, ctl: Ctl<'_>) -> anyhow::Result<()> {
        let governor = self.governor.display().to_string();
        for (domain, emergency) in [(&self.hospital, false), (&self.clinic, true)] {
            let mut words = vec!["--governor-key", &governor, "--participant", &domain.address];
            words.extend(emergency.then_some("--emergency"));
            self.call(ctl, "register", &words)?;
            let key = domain.key.display().to_string();
            self.call(ctl, "key", &["--key", &key, "--hpke-public-key", &domain.hpke_public])?;
        }
        Ok(())
    }

    fn call(&self, ctl: Ctl<'_>, verb: &str, arguments: &[&str]) -> anyhow::Result<Value> {
        let chain_id = self.chain_id.to_string();
        let mut words = vec!["participant", verb, "--rpc", &self.rpc, "--chain-id", &chain_id];
        words.extend(["--contract", &self.contract]);
        words.extend(arguments);
        ctl.call(Some(Place::Operator), &words)?.done()
    }
}

/// Makes the chain, and says which it is.
fn print_deployment(node: &Path, config: &Path) -> anyhow::Result<Printed> {
    let output = Command::new(node)
        .args(["--print-deployment", "--config"])
        .arg(config)
        .output()
        .with_context(|| node.display().to_string())?;
    if !output.status.success() {
        bail!("ledger-node: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("ledger-node --print-deployment")
}
