//! The real controller as a process, a namespace for Open vSwitch, and the operator's folder.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use caregate_host::identity::Role;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

#[path = "../../../sdn-controller/tests/controller/support/bridge.rs"]
mod bridge;
#[path = "../../../sdn-controller/tests/controller/support/pki.rs"]
mod pki;

pub(crate) use bridge::OpenVswitch;
pub(crate) use pki::Pki;

use crate::called::{self, Called, binary};

/// Longest wait for anything: Open vSwitch backs off up to 8 s between attempts, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until there is something, and fails by name when it takes too long.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    called::until(what, look)
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
    pub(crate) fn new() -> Self {
        let name = format!("caregate-ctl-{}", std::process::id());
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

/// A running `sdn-controller` on ports that the kernel chose, and an operator; ended on drop.
pub(crate) struct Controller {
    process: Child,
    pub(crate) openflow_port: u16,
    url: String,
    operator: String,
}

impl Controller {
    /// Starts it with `more` at the end of its configuration.
    pub(crate) fn start(pki: &Pki, more: &str) -> Self {
        let files = pki.issue(Role::Controller, "controller-1");
        let config = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ndata = {:?}\nlog = \"json\"\n\
             [identity]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n\
             [timing]\nhandshake_s = 10\necho_interval_s = 1\necho_timeout_s = 2\n\
             [rest]\nlisten = \"127.0.0.1:0\"\n{more}",
            pki.folder().join("data"),
            files.certificate,
            files.key,
            files.ca
        );
        let path = pki.folder().join("controller.toml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(binary("sdn-controller"));
        command.arg("--config").arg(path).stderr(Stdio::piped()).stdin(Stdio::null());
        let mut process = command.spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let (listening_out, listening) = mpsc::channel();
        // Its log must not block it, and belongs to the test's output.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                println!("{line}");
                let entry = serde_json::from_str::<Value>(&line).unwrap_or_default();
                if entry.get("openflow").is_some() && listening_out.send(entry).is_err() {
                    return;
                }
            }
        });
        let listening = listening.recv_timeout(PATIENCE).expect("the controller says where it listens");
        let port = |name: &str| -> u16 {
            listening[name].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
        };
        let url = format!("https://127.0.0.1:{}", port("rest"));
        Self { process, openflow_port: port("openflow"), url, operator: folder(pki, Role::Operator, "alice") }
    }

    /// Calls the program as the operator.
    pub(crate) fn call(&self, words: &str, arguments: &[&str]) -> Called {
        self.call_as(&self.operator, words, arguments)
    }

    pub(crate) fn call_as(&self, identity: &str, words: &str, arguments: &[&str]) -> Called {
        let mut all: Vec<&str> = words.split(' ').collect();
        let options = all
            .iter()
            .position(|word| ["show", "put", "delete", "bundle"].contains(word))
            .unwrap_or(all.len());
        // Options of a command come before its own commands.
        for option in ["--controller", &self.url, "--identity", identity].into_iter().rev() {
            all.insert(options, option);
        }
        all.extend(arguments);
        called::call(&all)
    }
}

/// A folder as `cargo xtask pki issue` makes it.
pub(crate) fn folder(pki: &Pki, role: Role, name: &str) -> String {
    let files = pki.issue(role, name);
    let dir: PathBuf = pki.folder().join(format!("{role}-{name}"));
    fs::create_dir_all(&dir).unwrap();
    for (from, to) in [(files.certificate, "certificate.pem"), (files.key, "key.pem"), (files.ca, "ca.pem")] {
        fs::copy(from, dir.join(to)).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
