//! veth pairs (`IFLA_LINKINFO` of `linux/if_link.h`).

use anyhow::Context;
use caregate_guest::netlink::{attribute, link, make, switch_on, text};

use crate::frames::Mac;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

/// Makes a pair of interfaces and switches both on; the second has this MAC address.
pub(crate) fn add(name: &str, peer: &str, mac: Mac) -> anyhow::Result<()> {
    let failed = || format!("making the veth pair {name}, {peer}");
    make(&pair(name, peer, mac)).with_context(failed)?;
    // Not before both are there: one alone has no carrier and can't be switched on.
    [name, peer].into_iter().try_for_each(|end| switch_on(end).with_context(failed))
}

fn pair(name: &str, peer: &str, mac: Mac) -> Vec<u8> {
    let other = [link(0), text(IFLA_IFNAME, peer), attribute(IFLA_ADDRESS, &mac)].concat();
    let data = attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &other));
    let info = attribute(IFLA_LINKINFO, &[text(IFLA_INFO_KIND, "veth"), data].concat());
    [text(IFLA_IFNAME, name), info].concat()
}
