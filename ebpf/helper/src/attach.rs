//! Puts programs on interfaces, or in the place of those that are there already.
//!
//! XDP is attached by a link, which is pinned and takes another program in one step (`BPF_LINK_UPDATE`, since 5.9). tc egress is a
//! filter of the `clsact` qdisc: kernels before 6.6 have no links there, and one way that works on all of them is one way to test. A
//! filter outlives the process by itself, and takes another program in one step as well.

use std::io;
use std::mem;
use std::thread;
use std::time::Duration;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::xdp::XdpLink;
use aya::programs::{Link, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use caregate_protocol::datapath::Mode;

use crate::error::{DatapathError, is_denied, kernel_answer};
use crate::links::Interface;
use crate::pin::Pins;

/// Before other filters, whose verdict would end the classification.
const TC_PRIORITY: u16 = 1;
/// How long a program that was taken off is waited for: a work queue of the kernel's, on a busy machine.
const DETACH_TRIES: u32 = 50;
const DETACH_INTERVAL: Duration = Duration::from_millis(2);
/// Ours, among the filters of that priority.
const TC_HANDLE: TcHandle = TcHandle::new(0xca4e, 1);

/// Puts an XDP program on a port: in the place of the one that is pinned there, else in the driver, else in the stack; in the
/// stack alone where `in_stack`.
///
/// # Errors
/// [`DatapathError::Attach`], [`DatapathError::Privilege`].
pub fn ingress(
    program: &mut Xdp,
    interface: &Interface,
    pins: &Pins,
    in_stack: bool,
) -> Result<Mode, DatapathError> {
    let fits = |mode: Mode| mode == Mode::Generic || !in_stack;
    if let Some((path, mode)) = pins.xdp(interface.index).filter(|(_, mode)| fits(*mode)) {
        let link = PinnedLink::from_pin(&path).and_then(|pinned| XdpLink::try_from(FdLink::from(pinned)));
        // The link goes out of hand with its descriptor; the pin keeps it.
        if link.is_ok_and(|link| program.attach_to_link(link).is_ok()) {
            return Ok(mode);
        }
    }
    // Of an interface that is gone and whose index came back, in the driver where it is to be in the stack, or of nothing at all.
    pins.remove_xdp(interface.index)?;
    if in_stack {
        let link = attach_in_stack(program, interface.index);
        let link = link.map_err(|error| DatapathError::kernel("attaching XDP in the stack", error))?;
        return pin_link(program, link, interface, Mode::Generic, pins);
    }
    let native = match program.attach_to_if_index(interface.index, XdpMode::Driver) {
        Ok(link) => return pin_link(program, link, interface, Mode::Native, pins),
        Err(error) if is_denied(&error) => return Err(DatapathError::kernel("attaching XDP", error)),
        Err(error) => error,
    };
    match program.attach_to_if_index(interface.index, XdpMode::Skb) {
        Ok(link) => {
            tracing::warn!(interface = interface.name, reason = %native, "the driver takes no XDP program");
            pin_link(program, link, interface, Mode::Generic, pins)
        }
        Err(generic) => Err(DatapathError::Attach {
            interface: interface.name.clone(),
            native: Box::new(native),
            generic: Box::new(generic),
        }),
    }
}

/// The kernel takes a program off some moments after its link's last pin is gone, and has no room for another one until then.
fn attach_in_stack(program: &mut Xdp, interface: u32) -> Result<<XdpLink as Link>::Id, ProgramError> {
    for _ in 0..DETACH_TRIES {
        if let Ok(link) = program.attach_to_if_index(interface, XdpMode::Skb) {
            return Ok(link);
        }
        thread::sleep(DETACH_INTERVAL);
    }
    program.attach_to_if_index(interface, XdpMode::Skb)
}

fn pin_link(
    program: &mut Xdp,
    link: <XdpLink as Link>::Id,
    interface: &Interface,
    mode: Mode,
    pins: &Pins,
) -> Result<Mode, DatapathError> {
    let unpinned = |error: LinkError| DatapathError::kernel("pinning the XDP link", error);
    let link =
        program.take_link(link).map_err(|error| DatapathError::kernel("pinning the XDP link", error))?;
    let link = FdLink::try_from(link).map_err(unpinned)?;
    let pinned = link.pin(pins.xdp_path(interface.index, mode));
    pinned.map_err(|error| DatapathError::kernel("pinning the XDP link", error))?;
    Ok(mode)
}

/// Puts the tc program on an uplink's egress, or in the place of ours that is there.
///
/// # Errors
/// [`DatapathError::Kernel`], [`DatapathError::Privilege`].
pub fn uplink(
    program: &mut SchedClassifier,
    interface: &Interface,
    pins: &Pins,
) -> Result<(), DatapathError> {
    match qdisc_add_clsact(&interface.name) {
        Err(error) if !is_there(&error) => {
            return Err(DatapathError::kernel("adding the clsact qdisc (kmod-sched-core on OpenWrt)", error));
        }
        Ok(()) | Err(_) => {}
    }
    let link = match program.attach_to_link(filter(interface)?) {
        Ok(link) => link,
        // None of ours yet.
        Err(_) => {
            let options = NlOptions { priority: TC_PRIORITY, handle: TC_HANDLE, classid: None };
            program
                .attach_with_options(&interface.name, TcAttachType::Egress, TcAttachOptions::Netlink(options))
                .map_err(|error| DatapathError::kernel("attaching the tc program", error))?
        }
    };
    let unowned = |error: ProgramError| DatapathError::kernel("attaching the tc program", error);
    // Dropped, it would take the filter away.
    mem::forget(program.take_link(link).map_err(unowned)?);
    pins.remove_tc(interface.index)?;
    let pinned = program.pin(pins.tc_path(interface.index));
    pinned.map_err(|error| DatapathError::kernel("pinning the tc program", error))
}

/// Takes our filter away, where it is.
///
/// # Errors
/// [`DatapathError`].
pub fn detach_uplink(interface: &Interface, pins: &Pins) -> Result<(), DatapathError> {
    match filter(interface)?.detach() {
        Err(error) if is_denied(&error) => {
            return Err(DatapathError::kernel("detaching the tc program", error));
        }
        // Gone already, with its interface or by somebody's hand.
        Ok(()) | Err(_) => {}
    }
    pins.remove_tc(interface.index)
}

fn filter(interface: &Interface) -> Result<SchedClassifierLink, DatapathError> {
    SchedClassifierLink::attached(&interface.name, TcAttachType::Egress, TC_PRIORITY, TC_HANDLE, None)
        .map_err(|error| DatapathError::kernel("finding the tc filter", error))
}

fn is_there(error: &TcError) -> bool {
    kernel_answer(error).is_some_and(|answer| answer.kind() == io::ErrorKind::AlreadyExists)
}
