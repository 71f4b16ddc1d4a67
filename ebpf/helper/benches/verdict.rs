//! What a verdict costs in the running kernel: `BPF_PROG_TEST_RUN` on one frame, a million times, cache hot. Needs root.
//! `cargo bench -p caregate-datapathd`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people")]

use std::net::{IpAddr, Ipv4Addr};

use aya::Ebpf;
use aya::programs::{TestRun, TestRunOptions};
use caregate_datapathd::kernel::Kernel;
use caregate_datapathd::switch::check::Guard;
use caregate_datapathd::switch::{Series, Switch};
use caregate_datapathd::{object, stages};
use caregate_ebpf_common::map;
use caregate_protocol::datapath::switch::{Change, FlowEntry, FlowInstructions, MATCH_BYTES};
use caregate_protocol::datapath::{Device, OpenPort, Policy};

const REPEAT: u32 = 1_000_000;
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xff];
const SENSOR: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// TCP to the MQTT port, or with its type changed ARP.
fn frame(source: [u8; 6], is_arp: bool) -> Vec<u8> {
    let mut frame = [GATEWAY, source].concat();
    if is_arp {
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        frame.resize(60, 0);
        return frame;
    }
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 2]);
    frame.extend(OWN.octets());
    frame.extend([0x9c, 0x40, 7, 91, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// Flows that drop other sources.
fn flows(count: u64) -> Vec<Change> {
    let put = (0..count).map(|id| {
        let (mut value, mut mask) = ([0; MATCH_BYTES], [0; MATCH_BYTES]);
        mask[24..30].fill(0xff);
        value[24..30].copy_from_slice(&[2, 9, 9, 9, id.to_be_bytes()[6], id.to_be_bytes()[7]]);
        let instructions = FlowInstructions::default();
        Change::PutFlow(FlowEntry {
            id,
            table: 1,
            priority: 1,
            value,
            mask,
            instructions: instructions.into(),
        })
    });
    std::iter::once(Change::Clear).chain(put).collect()
}

fn measure(ebpf: &mut Ebpf, what: &str, frame: &[u8]) {
    let program = object::sensor(ebpf).unwrap();
    let best = (0..5)
        .map(|_| {
            let options =
                TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::default() };
            program.test_run(options).unwrap().duration
        })
        .min();
    println!("{what}: {:?}", best.unwrap());
}

fn main() {
    let mut ebpf = object::load(None).unwrap();
    object::load_sensor(&mut ebpf).unwrap();
    let _stages = stages::load(&mut ebpf).unwrap();
    let mut switch = Switch::open(&mut ebpf, Guard { sensor_ports: 1, is_on: true }).unwrap();
    let mut kernel = Kernel::open(&mut ebpf).unwrap();
    let mac = map::mac_word(GATEWAY);
    // The kernel runs it as if on the loopback.
    kernel.set_ports(&[(1, [map::port_word(1, true), mac, mac, 0])], &[(1, IpAddr::from(OWN))]).unwrap();
    let devices = vec![Device { index: 0, mac: SENSOR }];
    let ports = vec![OpenPort { protocol: 6, port: 1883 }];
    kernel.set_policy(&Policy { devices, ports, floor: vec![] }).unwrap();
    measure(&mut ebpf, "unbound source, dropped", &frame([2, 0, 0, 0, 0, 0x66], false));
    measure(&mut ebpf, "stranger's ARP, above the meters", &frame([2, 0, 0, 0, 0, 0x66], true));
    for count in [0, 16, 64, 1024] {
        switch.change(&mut Series::Closed, flows(count), false, 1).unwrap();
        measure(&mut ebpf, &format!("bound sensor, {count} flows, none matches"), &frame(SENSOR, false));
    }
    let sensor = object::sensor(&mut ebpf).unwrap().info().unwrap().verified_instruction_count();
    let uplink = object::load_uplink(&mut ebpf).unwrap().info().unwrap().verified_instruction_count();
    println!("instructions that the verifier followed: XDP {sensor:?}, tc {uplink:?}");
}
