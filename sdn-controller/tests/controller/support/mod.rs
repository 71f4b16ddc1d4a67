//! What the tests against Open vSwitch stand on: a namespace, certificates, the controller's process and the bridge's.

mod bridge;
mod controller;
mod pki;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use caregate_host::clock;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) use bridge::OpenVswitch;
pub(crate) use controller::Controller;
pub(crate) use pki::Pki;

/// Longest wait for anything: Open vSwitch backs off up to 8 s between attempts, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Looks until there is something, and fails by name when it takes too long.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = clock::monotonic();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Runs a program to its end; what it wrote.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is needed by this test: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace with loopback alone; this thread, and the processes that it starts, are in it. Removed on drop.
pub(crate) struct Namespace {
    name: String,
    home: File,
}

impl Namespace {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("caregate-of-{test}-{}", std::process::id());
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        run("ip", &["netns", "add", &name]);
        let namespace = Self { home, name };
        let inside = File::open(format!("/run/netns/{}", namespace.name)).unwrap();
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        let removed = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !std::thread::panicking() {
            assert!(
                back.is_ok() && removed.is_ok_and(|status| status.success()),
                "{} is left behind",
                self.name
            );
        }
    }
}
