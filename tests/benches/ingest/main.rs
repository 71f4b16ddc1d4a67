//! From PUBLISH to the core's disk, beside mosquitto → TLS bridge → mosquitto: `cargo xtask bench ingest`. The last line is one JSON
//! object; `docs/benchmarks.md` says what each field means.
//!
//! ```text
//!  ours    load ─▶ gateway: seal, spool, sync ═QUIC═▶ core: sync ═QUIC═▶ feed ─WebSocket─▶ subscriber
//!  bridge  load ─▶ mosquitto ═════════════════TLS═══▶ mosquitto ───────MQTT, QoS 1──────▶ subscriber
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench")]

mod backlog;
mod bridge;
mod contender;
mod disk;
mod load;
#[path = "../../../core-cloud/tests/support/pki.rs"]
mod pki;
mod process;
mod site;
mod steady;
mod subscriber;

use std::time::Duration;

use serde_json::{Map, Value, json};

use self::bridge::Durability;
use self::contender::Contender;

const CONTENDERS: [&str; 3] = ["ours", "bridge", "bridge_durable"];

/// Options.
struct Plan {
    rounds: u32,
    /// Of each load.
    span: Duration,
    /// Of the cut.
    cut: Duration,
    /// Names of the parts that are measured; all where there are none.
    parts: Vec<String>,
}

impl Plan {
    fn of(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let seconds = Duration::from_secs;
        let mut plan = Self { rounds: 3, span: seconds(5), cut: seconds(20), parts: Vec::new() };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => plan = Self { rounds: 1, span: seconds(3), cut: seconds(5), ..plan },
                "--rounds" => plan.rounds = arguments.next().unwrap_or_default().parse()?,
                "--part" => plan.parts.extend(arguments.next()),
                // From cargo.
                "--bench" => {}
                other => anyhow::bail!("{other}: known are --quick, --rounds N, --part NAME"),
            }
        }
        Ok(plan)
    }

    /// Of contenders and of measurements, those that are named, or all where none of that kind is.
    fn measures(&self, part: &str) -> bool {
        let kind = |name: &str| CONTENDERS.contains(&name);
        let mut of_kind = self.parts.iter().filter(|one| kind(one) == kind(part)).peekable();
        of_kind.peek().is_none() || of_kind.any(|one| one == part)
    }
}

/// Values by field; of several rounds each.
#[derive(Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    pub(crate) fn put(&mut self, field: &str, value: f64) {
        eprintln!("  {field} {value:.3}");
        let values = self.0.entry(field).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(json!(value));
        }
    }

    /// The median of each; of what kills took, the sum: a loss in one round is one.
    fn report(self) -> Value {
        let one = |field: &str, values: &Value| {
            let mut values: Vec<f64> =
                values.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            let value = if field.contains("_kill_") {
                values.iter().sum()
            } else {
                quantile(&mut values, 1, 2).unwrap_or(0.0)
            };
            json!((value * 1000.0).round() / 1000.0)
        };
        self.0.iter().map(|(field, values)| (field.clone(), one(field, values))).collect::<Map<_, _>>().into()
    }
}

/// `numerator / denominator` of the values lie at or below the result.
pub(crate) fn quantile(values: &mut [f64], numerator: usize, denominator: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * numerator).div_ceil(denominator).checked_sub(1)?;
    values.get(at).copied()
}

/// One contender's turn.
fn measure(
    plan: &Plan,
    (round, name): (u32, &str),
    start: fn(usize) -> anyhow::Result<Contender>,
    is_whole: bool,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    if !plan.measures(name) {
        return Ok(());
    }
    if plan.measures("throughput") || plan.measures("paced") {
        eprintln!("ingest: round {round}, {name}");
        let contender = start(steady::CLIENTS)?;
        if plan.measures("throughput") {
            steady::throughput(&contender, name, plan.span, figures)?;
        }
        if plan.measures("paced") {
            steady::paced(&contender, name, plan.span, figures)?;
        }
    }
    if is_whole && plan.measures("kill") {
        eprintln!("ingest: round {round}, kill, {name}");
        backlog::kill(start(steady::CLIENTS)?, name, plan.cut, figures)?;
    }
    if is_whole && plan.measures("backlog") {
        eprintln!("ingest: round {round}, backlog, {name}");
        backlog::backlog(start(backlog::SENSORS)?, name, figures)?;
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let plan = Plan::of(std::env::args().skip(1))?;
    let mut figures = Figures::default();
    let peers = [
        (CONTENDERS[0], Contender::ours as fn(usize) -> anyhow::Result<Contender>),
        (CONTENDERS[1], |_| Contender::bridge(Durability::Usual)),
        (CONTENDERS[2], |_| Contender::bridge(Durability::Closest)),
    ];
    for round in 1..=plan.rounds {
        if plan.measures("disk") {
            eprintln!("ingest: round {round}, disk");
            disk::measure(plan.span, &mut figures)?;
        }
        for (name, start) in peers {
            // What takes a peer minutes it shows once.
            let is_whole = name == CONTENDERS[0] || round == 1;
            measure(&plan, (round, name), start, is_whole, &mut figures)?;
        }
        if plan.measures("ours") && plan.measures("write") {
            eprintln!("ingest: round {round}, what is written");
            steady::written(plan.span, &mut figures)?;
        }
    }
    println!("{}", figures.report());
    Ok(())
}
