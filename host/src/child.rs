//! Tests of what concerns a whole process run it again as a child: the same test, with a variable that says which side it is.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

const VARIABLE: &str = "CAREGATE_TEST_CHILD";

/// Whether this process is the child.
pub(crate) fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// A running child; ended on drop.
pub(crate) struct Child {
    process: std::process::Child,
    output: BufReader<ChildStdout>,
}

fn arguments(test: &str) -> [&str; 4] {
    [test, "--exact", "--nocapture", "--test-threads=1"]
}

/// Runs one test in a child with a variable set; what it wrote to both outputs.
pub(crate) fn run(test: &str, variable: &str, value: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(arguments(test)).env(VARIABLE, "1").env(variable, value).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

impl Child {
    pub(crate) fn start(test: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self::spawn(command.args(arguments(test)))
    }

    /// As systemd does it: the socket is descriptor 3, and the variables name the process.
    pub(crate) fn start_with_socket(test: &str, socket: TcpListener) -> Self {
        let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(std::env::current_exe().unwrap()).args(arguments(test));
        Self::spawn(command.stdin(Stdio::from(OwnedFd::from(socket))))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut process = command.env(VARIABLE, "1").stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// Reads its output until a line ends with `text` (the test harness may have begun that line).
    pub(crate) fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the child ended before it said {text}");
            if line.trim_end().ends_with(text) {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn status(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}
