//! The process's own figures for `/metrics`, under the names that Prometheus' client libraries agreed on.
//!
//! Read from `/proc/self` at each scrape; the `prometheus` crate's own collector would bring a crate that parses all of procfs.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge};

use crate::clock;

/// Clock ticks a second in `/proc/self/stat`: the kernel's `USER_HZ`, 100 on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Collects resident bytes, open descriptors, threads, CPU time and start time.
pub(crate) struct Process {
    resident: IntGauge,
    descriptors: IntGauge,
    threads: IntGauge,
    cpu: Gauge,
    start: Gauge,
}

impl Process {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let process = Self {
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory in bytes.")?,
            descriptors: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            threads: IntGauge::new("process_threads", "Operating system threads.")?,
            cpu: Gauge::new("process_cpu_seconds_total", "User and system CPU time in seconds.")?,
            start: Gauge::new(
                "process_start_time_seconds",
                "Unix time at which the process started, in seconds.",
            )?,
        };
        // Exact to the millisecond: 2^53 ms are 285 000 years.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        process.start.set(clock::now_ms() as f64 / 1000.0);
        Ok(process)
    }

    fn gauges(&self) -> [&dyn Collector; 5] {
        [&self.resident, &self.descriptors, &self.threads, &self.cpu, &self.start]
    }

    fn refresh(&self) {
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(kib) = status_field(&status, "VmRSS:") {
                self.resident.set(kib.saturating_mul(1024));
            }
            if let Some(threads) = status_field(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            self.descriptors.set(i64::try_from(entries.count()).unwrap_or(i64::MAX) - 1);
        }
        if let Some(ticks) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_ticks) {
            self.cpu.set(ticks / TICKS_PER_SECOND);
        }
    }
}

/// The number after `name` in `/proc/PID/status`.
fn status_field(status: &str, name: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// utime + stime of `/proc/PID/stat`, fields 14 and 15; field 2 may hold spaces and brackets, so counting starts behind it.
fn cpu_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_hostile_name() {
        let stat = "42 (a ) b( 1 2) S 1 42 42 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(175.0));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
        assert_eq!(status_field("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(status_field("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn figures_are_of_this_process() {
        let process = Process::new().unwrap();
        let held: Vec<_> = (0..20).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        process.refresh();
        assert!(process.resident.get() > 1 << 20);
        assert!(process.descriptors.get() >= 23, "{}", process.descriptors.get());
        assert!(process.threads.get() >= 1);
        assert!(process.start.get() > 1.7e9);
        drop(held);
    }
}
