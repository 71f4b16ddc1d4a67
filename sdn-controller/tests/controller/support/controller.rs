//! The controller as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use caregate_host::identity::{Identity, Role};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use super::Pki;

/// A running `sdn-controller` on ports that the kernel chose; ended on drop.
pub(crate) struct Controller {
    process: Child,
    /// Where it takes switches.
    pub(crate) openflow_port: u16,
    admin_port: u16,
    rest_port: u16,
    dashboard_port: u16,
    operator: Arc<ClientConfig>,
}

/// What the interface answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdn-controller"));
    command.arg("--config").arg(config).stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

impl Controller {
    /// Starts it with echoes every second and `more` at the end of its configuration.
    pub(crate) fn start(pki: &Pki, more: &str) -> Self {
        Self::start_at(pki, "127.0.0.1:0", more)
    }

    /// As `start`, for switches at this address.
    pub(crate) fn start_at(pki: &Pki, listen: &str, more: &str) -> Self {
        let files = pki.issue(Role::Controller, "controller-1");
        let config = format!(
            "listen = {listen:?}\nadmin = \"127.0.0.1:0\"\ndata = {:?}\nlog = \"json\"\n\
             [identity]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n\
             [timing]\nhandshake_s = 10\necho_interval_s = 1\necho_timeout_s = 2\n\
             [rest]\nlisten = \"127.0.0.1:0\"\n[dashboard]\nlisten = \"127.0.0.1:0\"\n{more}",
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
        let operator = Identity::load(&pki.issue(Role::Operator, "alice")).unwrap();
        let operator = Arc::new(operator.client_config(Role::Controller, None, &[b"http/1.1"]));
        Self {
            process,
            openflow_port: port("openflow"),
            admin_port: port("admin"),
            rest_port: port("rest"),
            dashboard_port: port("dashboard"),
            operator,
        }
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

    fn plain(port: u16, path: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request("GET", path, "").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        Answer::of(&answer)
    }

    fn get(&self, path: &str) -> String {
        let answer = Self::plain(self.admin_port, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        answer.body
    }

    /// The operators' page.
    pub(crate) fn page(&self, path: &str) -> Answer {
        Self::plain(self.dashboard_port, path)
    }

    /// A request to the interface, by the operator alice.
    pub(crate) fn rest(&self, method: &str, path: &str, body: &str) -> Answer {
        self.rest_as(&self.operator, method, path, body).expect("an operator is answered")
    }

    /// A request with another certificate; none where the handshake fails.
    pub(crate) fn rest_as(
        &self,
        who: &Arc<ClientConfig>,
        method: &str,
        path: &str,
        body: &str,
    ) -> Option<Answer> {
        let server = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::clone(who), server).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.rest_port)).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        let mut answer = Vec::new();
        stream.write_all(request(method, path, body).as_bytes()).ok()?;
        if let Err(error) = stream.read_to_end(&mut answer) {
            // hyper closes without TLS's own goodbye.
            if error.kind() != std::io::ErrorKind::UnexpectedEof || answer.is_empty() {
                return None;
            }
        }
        Some(Answer::of(&String::from_utf8(answer).unwrap()))
    }

    /// `GET`, which must succeed.
    pub(crate) fn read(&self, path: &str) -> Value {
        let answer = self.rest("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// `/v1/switches`, one object each.
    pub(crate) fn switches(&self) -> Vec<Value> {
        self.read("/v1/switches")["switches"].as_array().unwrap().clone()
    }

    /// A switch's flows.
    pub(crate) fn flows(&self, switch: &str) -> Vec<Value> {
        self.read(&format!("/v1/switches/{switch}/flows"))["flows"].as_array().unwrap().clone()
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

    /// Ends it as a power cut would, as far as a process can.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
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
