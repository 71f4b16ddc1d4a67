//! One lab: a namespace with the switch that is tested, the Open vSwitch that sends and receives for the suite, and the suite's process.
//!
//! ```text
//!            suite, 127.0.0.1
//!        6653 TLS │        │ 6654 TCP
//!              target    tester            in one namespace
//!               p1 ──────── t1
//!               p2 ──────── t2
//!               p3 ──────── t3
//! ```

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::network::{Namespace, TARGET_PORTS, TESTER_PORTS};
use super::openvswitch::{Bridge, OpenVswitch};
use super::ours::{self, Programs, Switch};
use super::plan::{Case, Side};
use super::suite::{Ids, Running, Suite, Verdict};
use crate::pki::Issued;

const IDS: Ids = Ids { target: "0000000000000001", tester: "0000000000000002" };
/// OpenFlow's port (IANA), where the suite's launcher takes TLS.
const CONTROLLER: &str = "127.0.0.1:6653";
const CONTROLLER_TLS: &str = "ssl:127.0.0.1:6653";
/// Where it takes TCP.
const CONTROLLER_TCP: &str = "tcp:127.0.0.1:6654";
/// The name in the suite's certificate.
pub(super) const CONTROLLER_NAME: &str = "conform";

/// What labs have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) suite: Suite,
    pub(super) controller: Issued,
    pub(super) switch: Issued,
    /// Where our switch is to be tested.
    pub(super) programs: Option<Programs>,
    /// Folder for what lives as long as the run: sockets, configurations, pins.
    pub(super) folder: PathBuf,
    pub(super) logs: PathBuf,
}

/// The switch that is tested.
#[derive(Debug)]
enum Target {
    /// Ours; the tester is the Open vSwitch beside it.
    Ours(Switch),
    /// A bridge of the same Open vSwitch that is the tester.
    Ovs,
}

/// One lab. Dropped in this order: whoever connects before the suite, processes before the namespace.
#[derive(Debug)]
pub(super) struct Lab {
    target: Target,
    ovs: OpenVswitch,
    suite: Running,
    _namespace: Namespace,
}

fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

impl Lab {
    /// Makes it, and waits until both switches are connected to the suite.
    pub(super) fn make(side: Side, number: usize, common: &Common) -> anyhow::Result<Self> {
        let (folder, logs) = (common.folder.join(number.to_string()), common.logs.join(number.to_string()));
        fresh(&folder)?;
        std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let namespace = Namespace::make(number)?;
        let mut suite = Running::start(&common.suite, &namespace, &common.controller, IDS, &logs)?;
        let tester = Bridge {
            name: "tester",
            datapath_id: IDS.tester,
            ports: TESTER_PORTS,
            controller: CONTROLLER_TCP,
        };
        let target = Bridge {
            name: "target",
            datapath_id: IDS.target,
            ports: TARGET_PORTS,
            controller: CONTROLLER_TLS,
        };
        let bridges = match side {
            Side::Ours => vec![tester],
            Side::Ovs => vec![tester, target],
        };
        let ovs = OpenVswitch::start(&namespace, &bridges, &common.switch, &folder, &logs)?;
        let target = match side {
            Side::Ovs => Target::Ovs,
            Side::Ours => {
                let how = ours::Start {
                    programs: common.programs.as_ref().context("our switch is not built")?,
                    identity: &common.switch,
                    controller: (CONTROLLER, CONTROLLER_NAME),
                    datapath_id: IDS.target,
                    folder: &folder,
                    logs: &logs,
                };
                Target::Ours(Switch::start(&namespace, &how)?)
            }
        };
        let ready = suite.ready();
        let mut lab = Self { target, ovs, suite, _namespace: namespace };
        match ready {
            Ok(()) => Ok(lab),
            Err(error) => {
                lab.alive()?;
                Err(error.context(format!("the suite waits for its switches (logs in {})", logs.display())))
            }
        }
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        self.ovs.alive()?;
        match &mut self.target {
            Target::Ours(switch) => switch.alive(),
            Target::Ovs => Ok(()),
        }
    }

    /// Runs one case. Also says whether the lab can go on.
    pub(super) fn verdict(&mut self, case: &Case) -> (Verdict, bool) {
        let failed = |reason: String| Verdict { passed: false, reason, connected: false, seconds: 0.0 };
        let verdict = self.suite.ask(case).unwrap_or_else(|error| failed(format!("no verdict: {error:#}")));
        match self.alive() {
            Err(error) => (failed(format!("{error:#}")), false),
            Ok(()) => {
                let goes_on = verdict.connected;
                (verdict, goes_on)
            }
        }
    }
}
