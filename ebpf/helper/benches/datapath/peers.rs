//! What a user would pick instead, from Debian: xdp-filter (xdp-tools) and nftables, each with 64 addresses of which the frame's source is
//! one. That is less than our flows ask for, and the form in which either is fastest.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context as _;
use caregate_tests::bpf;
use caregate_tests::rules::FRAME_SOURCE;

use super::wire::{Wire, run};

/// Addresses beside the frame's source.
const OTHERS: u8 = 63;

fn addresses() -> Vec<String> {
    let [a, b, c, d] = FRAME_SOURCE;
    let others = (0..OTHERS).map(|last| format!("10.7.{last}.{}", last + 1));
    others.chain([format!("{a}.{b}.{c}.{d}")]).collect()
}

/// xdp-filter on a wire of its own.
pub(super) struct XdpFilter {
    wire: Wire,
    program: OwnedFd,
}

impl XdpFilter {
    /// Loads it; it drops frames from 64 addresses.
    pub(super) fn load(name: &str) -> anyhow::Result<Self> {
        // It keeps its maps there; these mounts are this process's own.
        const BPF: &str = "/sys/fs/bpf";
        if !Path::new(BPF).join("xdp-filter").exists() {
            run("mount", &["--make-rprivate", "/"])?;
            run("mount", &["-t", "bpf", "bpf", BPF])?;
        }
        let wire = Wire::make(name)?;
        // No more than the one feature that is used.
        run("xdp-filter", &["load", "--mode", "native", "--features", "ipv4", &wire.name])?;
        for address in addresses() {
            run("xdp-filter", &["ip", "--mode", "src", &address])?;
        }
        let shown = run("ip", &["-json", "link", "show", "dev", &wire.name])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let id = shown[0]["xdp"]["prog"]["id"].as_u64().context("xdp-filter attached no program")?;
        Ok(Self { wire, program: bpf::by_id(u32::try_from(id)?)? })
    }

    pub(super) fn program(&self) -> &OwnedFd {
        &self.program
    }

    /// Its wire, on which it stays.
    pub(super) fn wire(self) -> Wire {
        self.wire
    }
}

/// A wire with nftables at its end: netdev ingress, a hashed set.
pub(super) fn nft(name: &str) -> anyhow::Result<Wire> {
    let wire = Wire::make(name)?;
    // Frames from XDP reach an interface without a program of its own only so.
    run("ethtool", &["-K", &wire.name, "gro", "on"])?;
    let rules = format!(
        "table netdev bench {{\n\
           set sources {{ type ipv4_addr; elements = {{ {} }}; }}\n\
           chain ingress {{\n\
             type filter hook ingress device \"{}\" priority 0; policy accept;\n\
             ip saddr @sources drop\n\
           }}\n\
         }}\n",
        addresses().join(", "),
        wire.name
    );
    run("nft", &[&rules])?;
    Ok(wire)
}
