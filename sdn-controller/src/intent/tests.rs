use super::*;

fn id(number: u64) -> DatapathId {
    DatapathId(number)
}

const SENSOR: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn gateway() -> Target {
    Target { switch: id(1), table: 1, lane_ports: LANE_PORTS_DEFAULT }
}

fn compiled(target: Target, intents: &[(&str, Intent)]) -> Vec<Rule> {
    let intents: BTreeMap<_, _> =
        intents.iter().map(|(name, intent)| ((*name).to_owned(), intent.clone())).collect();
    target.compile(&intents)
}

fn lane(lane: LaneName, queue: Option<u32>, switch: Option<DatapathId>) -> Intent {
    Intent::Lane { lane, dscp: 46, queue, switch }
}

#[test]
fn json_is_that_of_the_interface() {
    for (text, intent) in [
        (
            r#"{"kind":"quarantine","switch":"00000000000000ab","mac":"02:00:00:00:00:01"}"#,
            Intent::Quarantine { switch: id(0xab), mac: SENSOR },
        ),
        (
            r#"{"kind":"sensor-may-reach-gateway","switch":"0000000000000001","mac":"02:00:00:00:00:01"}"#,
            Intent::SensorMayReachGateway { switch: id(1), mac: SENSOR },
        ),
        (r#"{"kind":"lane","lane":"alarm","dscp":46,"queue":1}"#, lane(LaneName::Alarm, Some(1), None)),
        (
            r#"{"kind":"lane","lane":"backlog","dscp":46,"switch":"0000000000000001"}"#,
            lane(LaneName::Backlog, None, Some(id(1))),
        ),
    ] {
        assert_eq!(serde_json::from_str::<Intent>(text).unwrap(), intent);
        assert_eq!(serde_json::to_string(&intent).unwrap(), text);
        intent.check().unwrap();
    }
}

#[test]
fn what_means_nothing_is_refused_by_name() {
    for text in [
        "{}",
        r#"{"kind":"mirror"}"#,
        r#"{"kind":"quarantine","switch":"1","mac":"02:00:00:00:00:01"}"#,
        r#"{"kind":"quarantine","switch":"+00000000000000a","mac":"02:00:00:00:00:01"}"#,
        r#"{"kind":"quarantine","switch":"0000000000000001","mac":"02:00:00:00:00"}"#,
        r#"{"kind":"quarantine","switch":"0000000000000001","mac":"02:00:00:00:00:01","x":1}"#,
        r#"{"kind":"lane","lane":"music","dscp":1}"#,
        r#"{"kind":"lane","lane":"alarm","dscp":256}"#,
    ] {
        assert!(serde_json::from_str::<Intent>(text).is_err(), "{text}");
    }
    let group = Intent::Quarantine { switch: id(1), mac: Mac([1, 0, 0, 0, 0, 0]) };
    assert!(matches!(group.check(), Err(IntentError::Mac(_))));
    let high = Intent::Lane { lane: LaneName::Alarm, dscp: 64, queue: None, switch: None };
    assert_eq!(high.check(), Err(IntentError::Dscp(64)));
    for name in ["", "a b", "é", "a/b", &"a".repeat(NAME_BYTES_MAX + 1)] {
        assert_eq!(check_name(name), Err(IntentError::Name), "{name}");
    }
    check_name(&"a".repeat(NAME_BYTES_MAX)).unwrap();
}

#[test]
fn a_quarantine_drops_what_the_address_sends_and_nothing_stands_above_it() {
    let quarantine = Intent::Quarantine { switch: id(1), mac: SENSOR };
    let permit = Intent::SensorMayReachGateway { switch: id(1), mac: SENSOR };
    let rules =
        compiled(gateway(), &[("a", permit), ("b", quarantine), ("c", lane(LaneName::Alarm, None, None))]);
    let priorities: Vec<_> = rules.iter().map(|rule| (rule.intent.as_str(), rule.priority)).collect();
    assert_eq!(priorities, [("b", 0xffff), ("a", 0x8000), ("c", 0x4000), ("c", 0x4000)]);
    assert_eq!(rules[0].pattern.to_string(), "eth_src=020000000001");
    assert_eq!(rules[0].instructions, []);
    assert!(rules.iter().all(|rule| rule.table == 1));
}

#[test]
fn a_sensor_reaches_the_gateway_by_local_or_on_the_way_by_normal() {
    let permit = Intent::SensorMayReachGateway { switch: id(1), mac: SENSOR };
    let output = |target| compiled(target, &[("a", permit.clone())])[0].instructions.clone();
    let to = |port| [Instruction::ApplyActions(vec![Action::output(port)])];
    assert_eq!(output(gateway()), to(port::LOCAL));
    assert_eq!(output(Target { table: 0, ..gateway() }), to(port::NORMAL));
}

#[test]
fn lanes_are_marked_by_source_port_in_both_ip_versions() {
    let rules = compiled(gateway(), &[("a", lane(LaneName::Backlog, Some(3), None))]);
    let patterns: Vec<_> = rules.iter().map(|rule| rule.pattern.to_string()).collect();
    assert_eq!(
        patterns,
        [
            "in_port=fffffffe,eth_type=0800,ip_proto=11,udp_src=1cec",
            "in_port=fffffffe,eth_type=86dd,ip_proto=11,udp_src=1cec"
        ]
    );
    let marked = [Action::SetField(Oxm::ip_dscp(46)), Action::SetQueue(3), Action::output(port::NORMAL)];
    assert_eq!(rules[1].instructions, [Instruction::ApplyActions(marked.to_vec())]);

    let on_the_way = Target { table: 0, lane_ports: 9000, ..gateway() };
    let rules = compiled(on_the_way, &[("a", lane(LaneName::Vitals, None, None))]);
    assert_eq!(rules[0].pattern.to_string(), "eth_type=0800,ip_proto=11,udp_src=2329");
    let marked = [Action::SetField(Oxm::ip_dscp(46)), Action::output(port::NORMAL)];
    assert_eq!(rules[0].instructions, [Instruction::ApplyActions(marked.to_vec())]);
}

#[test]
fn other_switches_and_the_second_of_two_alike_get_nothing() {
    let elsewhere = Intent::Quarantine { switch: id(2), mac: SENSOR };
    let here = Intent::Quarantine { switch: id(1), mac: SENSOR };
    let rules = compiled(gateway(), &[("a", elsewhere), ("b", here.clone()), ("c", here)]);
    assert_eq!(rules.iter().map(|rule| rule.intent.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(compiled(gateway(), &[("a", lane(LaneName::Alarm, None, Some(id(2))))]), []);
}
