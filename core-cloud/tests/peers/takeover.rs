//! Whose a pseudonym is when gateways are revoked and set active again, with the other gateways' connections open meanwhile.

use crate::support::records::Sealing;
use crate::support::{Core, Gateway, Site, close_reason, send, until};
use caregate_protocol::erasure::{Erasure, RequestHash};
use caregate_protocol::id::{Lane, PatientId};
use caregate_protocol::uplink::{EraseRefusal, Frame, Refusal, Timing};
use quinn::SendStream;

/// A gateway with a lane.
struct Peer {
    gateway: Gateway,
    lane: SendStream,
}

impl Peer {
    async fn of(site: &Site, core: &Core, name: &str) -> Self {
        let gateway = site.gateway(core, name).await;
        let lane = gateway.lane(Lane::Vitals, false).await;
        Self { gateway, lane }
    }

    async fn of_backlog(site: &Site, core: &Core, name: &str) -> Self {
        let gateway = site.gateway(core, name).await;
        let lane = gateway.lane(Lane::Vitals, true).await;
        Self { gateway, lane }
    }

    /// Sends the segment of this number, which is stored.
    async fn stores(&mut self, of: &Sealing, sequence: u64) {
        send(&mut self.lane, sequence, &of.segment(sequence)).await;
        self.gateway.acked([sequence]).await;
    }

    /// Sends the segment of this number, which is another's to send.
    async fn is_a_stranger(&mut self, to: &Sealing, sequence: u64) {
        send(&mut self.lane, sequence, &to.segment(sequence)).await;
        self.is_refused(sequence).await;
    }

    async fn is_refused(&mut self, position: u64) {
        let refused = Frame::Refuse { position, refusal: Refusal::Stranger };
        assert_eq!(self.gateway.answers.next().await, Some(refused));
    }

    /// The core ends the connection: something that was refused may be taken.
    async fn ends_released(self) {
        assert_eq!(close_reason(&self.gateway.connection).await, "released");
    }
}

/// What the second gateway seals under another's pseudonym.
fn of_second(owner: &Sealing) -> Sealing {
    Sealing { patient: owner.patient, ..Sealing::new(2) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_whichever_owner_that_it_met_is_revoked() {
    let site = Site::new();
    let core = site.core();
    let (first, third) = (Sealing::new(1), Sealing::new(3));
    Peer::of(&site, &core, "gateway-1").await.stores(&first, 0).await;
    Peer::of(&site, &core, "gateway-3").await.stores(&third, 0).await;
    let mut second = Peer::of(&site, &core, "gateway-2").await;
    // It meets the first gateway first, and the third is the first to go.
    second.is_a_stranger(&of_second(&first), 1).await;
    second.is_a_stranger(&of_second(&third), 2).await;
    // What is its own goes on over the same connection.
    second.stores(&Sealing::new(2), 3).await;
    site.governors.suspend("gateway-3");
    second.ends_released().await;
    until("the end is counted", || core.closed_for("released") == 1).await;

    let mut second = Peer::of(&site, &core, "gateway-2").await;
    second.is_a_stranger(&of_second(&first), 1).await;
    second.stores(&of_second(&third), 2).await;
    site.governors.suspend("gateway-1");
    second.ends_released().await;
    until("the end is counted", || core.closed_for("released") == 2).await;

    let mut second = Peer::of(&site, &core, "gateway-2").await;
    second.stores(&of_second(&first), 1).await;
    second.stores(&of_second(&third), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_set_active_again_is_a_stranger_to_what_was_taken_over_also_after_a_restart() {
    let site = Site::new();
    let mut core = site.core();
    let lost = Sealing::new(1);
    let kept = Sealing { patient: PatientId([9; 16]), ..Sealing::new(1) };
    let mut first = Peer::of(&site, &core, "gateway-1").await;
    first.stores(&lost, 0).await;
    first.stores(&kept, 1).await;
    site.governors.suspend("gateway-1");
    Peer::of(&site, &core, "gateway-2").await.stores(&of_second(&lost), 2).await;
    site.governors.reinstate("gateway-1");
    // By the same core, and by one that has it from its store.
    for sequence in [10, 20] {
        let mut first = Peer::of(&site, &core, "gateway-1").await;
        first.is_a_stranger(&lost, sequence).await;
        let asked = Erasure { patient: lost.patient, made_us: 7 }.sign(&lost.device).to_vec();
        let expected =
            Frame::EraseRefused { request: RequestHash::of(&asked), refusal: EraseRefusal::Stranger };
        first.gateway.control.write_all(&Frame::Erase { request: asked }.encode()).await.unwrap();
        assert_eq!(first.gateway.answers.next().await, Some(expected), "although its records are there");
        first.stores(&kept, sequence + 1).await;
        let mut second = Peer::of(&site, &core, "gateway-2").await;
        second.is_a_stranger(&of_second(&kept), sequence + 2).await;
        second.stores(&of_second(&lost), sequence + 3).await;
        drop(core.stop().await);
        core = site.core();
    }
    // It goes back as it went.
    site.governors.suspend("gateway-2");
    Peer::of(&site, &core, "gateway-1").await.stores(&lost, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_written_while_its_pseudonym_is_taken_over_is_refused_and_gives_nothing_back() {
    let site = Site::new();
    let mut core = site.paused();
    let lost = Sealing::new(1);
    let mut first = Peer::of_backlog(&site, &core, "gateway-1").await;
    for (sequence, waiting) in [(0, 1), (1, 2)] {
        send(&mut first.lane, sequence, &lost.segment(sequence)).await;
        until("it waits", || core.waiting(Timing::Backlog) == waiting).await;
    }
    site.governors.suspend("gateway-1");
    let mut second = Peer::of(&site, &core, "gateway-2").await;
    send(&mut second.lane, 7, &of_second(&lost).segment(7)).await;
    until("it waits", || core.waiting(Timing::Live) == 1).await;
    site.governors.reinstate("gateway-1");
    // What is live is written first.
    core.start_writer();
    second.gateway.acked([7]).await;
    for position in [0, 1] {
        first.is_refused(position).await;
    }
    assert_eq!((core.records("stored"), core.records("refused"), core.refused_for("stranger")), (1, 2, 2));
    // Its connection ends when what was refused may be taken.
    site.governors.suspend("gateway-2");
    first.ends_released().await;
    site.governors.reinstate("gateway-2");
    drop(core.stop().await);
    // As the store has it.
    let core = site.core();
    Peer::of(&site, &core, "gateway-1").await.is_a_stranger(&lost, 0).await;
    Peer::of(&site, &core, "gateway-2").await.stores(&of_second(&lost), 8).await;
    site.governors.suspend("gateway-2");
    let mut first = Peer::of(&site, &core, "gateway-1").await;
    first.stores(&lost, 0).await;
    first.stores(&lost, 1).await;
}
