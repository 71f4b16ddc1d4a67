//! The controller as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use caregate_host::identity::Role;
use serde_json::Value;

use super::Pki;

/// A running `sdn-controller` on ports that the kernel chose; ended on drop.
pub(crate) struct Controller {
    process: Child,
    /// Where it takes switches.
    pub(crate) openflow_port: u16,
    admin_port: u16,
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdn-controller"));
    command.arg("--config").arg(config).stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

impl Controller {
    /// Starts it with echoes every second and `more` at the end of its configuration.
    pub(crate) fn start(pki: &Pki, more: &str) -> Self {
        let files = pki.issue(Role::Controller, "controller-1");
        let config = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ndata = {:?}\nlog = \"json\"\n\
             [identity]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n\
             [timing]\nhandshake_s = 10\necho_interval_s = 1\necho_timeout_s = 2\n{more}",
            pki.folder().join("data"),
            files.certificate,
            files.key,
            files.ca
        );
        let path = pki.folder().join("controller.toml");
        fs::write(&path, config).unwrap();
        assert!(command(&path).arg("--check-config").status().unwrap().success());
        let mut process = command(&path).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let (listening_out, listening) = mpsc::channel();
        // Its log must not block it, and belongs to the test's output.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let entry = serde_json::from_str::<Value>(&line).unwrap_or_default();
                if entry.get("openflow").is_some() && listening_out.send(entry).is_err() {
                    return;
                }
            }
        });
        let listening =
            listening.recv_timeout(super::PATIENCE).expect("the controller says where it listens");
        let port =
            |name: &str| listening[name].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, openflow_port: port("openflow"), admin_port: port("admin") }
    }

    /// What it says of a configuration that it refuses.
    pub(crate) fn refused(config: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.toml");
        fs::write(&path, config).unwrap();
        let output = command(&path).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        body.to_owned()
    }

    /// `/switches`, one object each.
    pub(crate) fn switches(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.get("/switches")).unwrap();
        answer["switches"].as_array().unwrap().clone()
    }

    /// The value of one line of `/metrics`; 0 where there is none yet.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Sends bytes without TLS and waits until the controller has closed.
    pub(crate) fn send_in_the_clear(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.openflow_port)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }

    /// Ready until now; SIGTERM; a clean exit.
    pub(crate) fn stop(mut self) {
        assert_eq!((self.get("/healthz").as_str(), self.get("/readyz").as_str()), ("ok\n", "ready\n"));
        super::run("kill", &["-TERM", &self.process.id().to_string()]);
        let status = super::wait_for("the controller to stop", || self.process.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }
}
