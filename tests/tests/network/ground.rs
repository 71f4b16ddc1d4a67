//! A gateway's and a core's network namespace with two ways between them, as a home has a WAN and a mobile link.
//!
//! ```text
//!   gateway 10.1.0.1 ── wan ── 10.1.0.2 core
//!           10.2.0.1 ── lte ── 10.2.0.2      10.9.0.1: where the core listens
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::site::Surroundings;

fn run(program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`{program} {}` needs root, iproute2 and nftables: {said}",
        arguments.join(" ")
    );
}

/// The way that packets to the core take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Link {
    Wan,
    Lte,
}

/// Both namespaces; the thread that made it is in the gateway's until it is dropped.
pub(crate) struct Ground {
    home: File,
    gateway: String,
    core: String,
}

impl Ground {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("caregate-{end}-{}-{number}", std::process::id());
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let ground = Self { home, gateway: name("gateway"), core: name("core") };
        let (gateway, core) = (ground.gateway.as_str(), ground.core.as_str());
        for name in [gateway, core] {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        for (link, net) in [("wan", "10.1.0"), ("lte", "10.2.0")] {
            run(
                "ip",
                &["-n", gateway, "link", "add", link, "type", "veth", "peer", "name", link, "netns", core],
            );
            for (name, host) in [(gateway, 1), (core, 2)] {
                run("ip", &["-n", name, "address", "add", &format!("{net}.{host}/24"), "dev", link]);
                run("ip", &["-n", name, "link", "set", link, "up"]);
            }
        }
        run("ip", &["-n", core, "address", "add", "10.9.0.1/32", "dev", "lo"]);
        let inside = File::open(format!("/run/netns/{gateway}")).unwrap();
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        ground.route(Link::Wan);
        ground
    }

    /// The core's end for a [`crate::site::Site`].
    pub(crate) fn surroundings(&self) -> Surroundings {
        let address = |port: u16| SocketAddr::from(([10, 9, 0, 1], port));
        let prefix = ["ip", "netns", "exec", &self.core].map(str::to_owned).to_vec();
        Surroundings {
            data: None,
            core: address(4433),
            core_tcp: Some(address(4433)),
            core_admin: address(9090),
            core_prefix: prefix,
        }
    }

    /// From now on packets to the core leave by this link, and from its address.
    pub(crate) fn route(&self, link: Link) {
        let via = match link {
            Link::Wan => "10.1.0.2",
            Link::Lte => "10.2.0.2",
        };
        run("ip", &["-n", &self.gateway, "route", "replace", "10.9.0.1/32", "via", via]);
    }

    /// Drops at the core what comes in and fits `pattern` of nft's language, until [`Self::heal`].
    pub(crate) fn drop_incoming(&self, pattern: &str) {
        let rules = format!(
            "table inet cut {{\n chain in {{\n type filter hook input priority 0\n iifname \"lo\" accept\n {pattern} drop\n }}\n}}"
        );
        run("ip", &["netns", "exec", &self.core, "nft", &rules]);
    }

    pub(crate) fn heal(&self) {
        run("ip", &["netns", "exec", &self.core, "nft", "delete table inet cut"]);
    }

    /// From now on a NAT stands between both, which gives each flow a port of its choice and forgets it where nothing of it passes for so
    /// many seconds.
    pub(crate) fn nat(&self, forgets_s: u32) {
        let rules = "table ip nat {\n chain post {\n type nat hook postrouting priority srcnat\n oifname != \"lo\" masquerade fully-random\n }\n}";
        run("ip", &["netns", "exec", &self.gateway, "nft", rules]);
        for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            let set = format!("echo {forgets_s} > /proc/sys/net/netfilter/{timeout}");
            run("ip", &["netns", "exec", &self.gateway, "sh", "-c", &set]);
        }
        let rules = "table inet seen {\n set ports {\n type inet_service\n flags dynamic\n }\n chain in {\n type filter hook input priority 0\n iifname != \"lo\" meta l4proto udp add @ports { udp sport }\n }\n}";
        run("ip", &["netns", "exec", &self.core, "nft", rules]);
    }

    /// The ports from which UDP has come to the core since [`Self::nat`].
    pub(crate) fn ports(&self) -> BTreeSet<u64> {
        let arguments = ["netns", "exec", &self.core, "nft", "-j", "list", "set", "inet", "seen", "ports"];
        let output = Command::new("ip").args(arguments).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let sets =
            said["nftables"].as_array().unwrap().iter().filter_map(|one| one["set"]["elem"].as_array());
        sets.flatten().map(|port| port.as_u64().unwrap_or_else(|| panic!("{port}"))).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        let removed = [&self.gateway, &self.core].map(|name| {
            let status = Command::new("ip").args(["netns", "del", name]).status();
            status.is_ok_and(|status| status.success())
        });
        if !std::thread::panicking() {
            assert!(back.is_ok() && removed == [true; 2], "namespaces are left behind");
        }
    }
}
