//! The commit thread itself, with an uplink that nobody listens to.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caregate_protocol::alarm::Standing;
use caregate_protocol::id::PatientId;
use edge_gateway::ingest::{self, Inlet};
use edge_gateway::pipeline::commit::Committer;
use edge_gateway::pipeline::front::Front;
use edge_gateway::pipeline::thread::{self, ACKED_MAX, Inputs};
use edge_gateway::policy::Proposal;
use edge_gateway::uplink::Uplink;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where sensors come in, and what the thread takes from.
pub(crate) fn doors() -> (Inlet, Front) {
    let (inlet, intake) = ingest::queue();
    (inlet, Front::new(intake))
}

/// What the thread listens to beside the doors; by default nothing comes.
pub(crate) struct Sources {
    pub(crate) proposals: mpsc::Receiver<Proposal>,
    pub(crate) standings: mpsc::Receiver<(PatientId, Standing)>,
    pub(crate) linger: Duration,
}

impl Default for Sources {
    fn default() -> Self {
        let (proposals, standings) = (mpsc::channel(1).1, mpsc::channel(1).1);
        Self { proposals, standings, linger: Duration::from_millis(1) }
    }
}

/// A commit thread that runs.
pub(crate) struct Commits {
    /// Where the core's acknowledgements come in.
    pub(crate) acked: mpsc::Sender<RangeInclusive<u64>>,
    thread: JoinHandle<()>,
}

impl Commits {
    pub(crate) fn begin(committer: Committer, inbound: Front, sources: Sources) -> Self {
        let Sources { proposals, standings, linger } = sources;
        let (acked, acked_in) = mpsc::channel(ACKED_MAX);
        let inputs = Inputs { inbound, acked: acked_in, proposals, standings, linger };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let uplink = Arc::new(Uplink::new([]));
            runtime.block_on(thread::run(committer, inputs, uplink, CancellationToken::new())).unwrap();
        });
        Self { acked, thread }
    }

    /// Waits for the thread's end. Its doors must be closed.
    pub(crate) fn end(self) {
        let Self { acked, thread } = self;
        drop(acked);
        thread.join().unwrap();
    }
}
