use super::*;

fn read(value: Value) -> Result<FlowMod, String> {
    let file: FlowModFile = serde_json::from_value(value).map_err(|error| error.to_string())?;
    FlowMod::try_from(file).map_err(|error| error.to_string())
}

fn reported(flow_mod: FlowMod) -> FlowStats {
    FlowStats {
        table_id: flow_mod.table_id,
        lasted: std::time::Duration::from_secs(12).into(),
        priority: flow_mod.priority,
        idle_timeout_s: flow_mod.idle_timeout_s,
        hard_timeout_s: flow_mod.hard_timeout_s,
        flags: flow_mod.flags,
        cookie: flow_mod.cookie,
        packets: 3,
        bytes: 180,
        pattern: flow_mod.pattern,
        instructions: flow_mod.instructions,
    }
}

#[test]
fn a_rule_is_read_and_shown_in_the_same_words() {
    let pattern = json!({
        "in_port": "LOCAL", "eth_src": "02:00:00:00:00:01/ff:ff:ff:00:00:00", "eth_type": "0x800", "ip_proto": 17,
        "ipv4_dst": "10.0.0.0/255.0.0.0", "udp_src": 7400,
    });
    let actions = json!([{"set_field": {"ip_dscp": 46}}, {"set_queue": 1}, {"output": "NORMAL"}]);
    let rule = json!({
        "table": 1, "priority": 9, "cookie": "0x2a", "match": pattern, "actions": actions, "idle_timeout_s": 4,
        "hard_timeout_s": 5, "goto_table": 2, "meter": 3,
    });
    let flow_mod = read(rule).unwrap();
    assert_eq!(
        flow_mod.pattern.to_string(),
        "in_port=fffffffe,eth_src=020000000001/ffffff000000,eth_type=0800,ip_proto=11,ipv4_dst=0a000000/ff000000,udp_src=1ce8"
    );
    let shown = flow(&reported(flow_mod), None);
    assert_eq!((&shown["match"], &shown["actions"]), (&pattern, &actions));
    assert_eq!(shown["cookie"], "0x2a");
    assert_eq!((&shown["goto_table"], &shown["meter"], &shown["age_s"]), (&json!(2), &json!(3), &json!(12)));
}

#[test]
fn prefixes_are_masks() {
    let masked = |field: &str, value: &str| {
        let flow_mod = read(json!({"match": {field: value}})).unwrap();
        flow_mod.pattern.to_string()
    };
    assert_eq!(masked("ipv4_src", "10.1.0.0/15"), "ipv4_src=0a010000/fffe0000");
    assert_eq!(masked("ipv4_src", "10.1.2.3/0"), "ipv4_src=0a010203/00000000");
    assert_eq!(
        masked("ipv6_dst", "fd00::/8"),
        format!("ipv6_dst=fd{}/ff{}", "00".repeat(15), "00".repeat(15))
    );
    assert_eq!(masked("metadata", "0x1/0xff"), "metadata=0000000000000001/00000000000000ff");
}

#[test]
fn commands_and_filters() {
    let flow_mod =
        read(json!({"command": "delete", "table": 255, "cookie": 7, "cookie_mask": "0xff", "out_port": 3}))
            .unwrap();
    assert_eq!((flow_mod.command, flow_mod.table_id, flow_mod.out_port), (Command::Delete, 255, 3));
    assert_eq!((flow_mod.cookie, flow_mod.cookie_mask), (7, 0xff));
    let to_controller =
        read(json!({"actions": [{"output": "CONTROLLER"}, {"output": 4, "max_len": 0}]})).unwrap();
    let outputs = vec![Action::Output { port: port::CONTROLLER, max_len: 0xffff }, Action::output(4)];
    assert_eq!(to_controller.instructions, [Instruction::ApplyActions(outputs)]);
}

#[test]
fn what_is_wrong_is_named() {
    for (rule, says) in [
        (json!({"match": {"eth_source": "x"}}), "`eth_source`: OpenFlow 1.3 has no such field"),
        (json!({"match": {"eth_src": "02:00"}}), "`eth_src`: must be a value of 6 bytes"),
        (json!({"match": {"udp_src": 65536}}), "`udp_src`: must be a value of 2 bytes"),
        (json!({"match": {"udp_src": -1}}), "`udp_src`"),
        (json!({"match": {"ipv4_src": "10.0.0.0/33"}}), "`ipv4_src`"),
        (json!({"match": {"in_port": "MIDDLE"}}), "`in_port`"),
        (json!({"match": {"ip_proto": [1]}}), "`ip_proto`"),
        (json!({"cookie": "42a"}), "`cookie`"),
        (json!({"cookie": "0x4341524500000001"}), "mark the controller's own"),
        (json!({"actions": [{"mirror": 1}]}), "`actions`"),
        (json!({"actions": [{"output": 1, "set_queue": 2}]}), "`actions`"),
        (json!({"actions": [{"set_queue": 1, "group": 2}]}), "`actions`"),
        (json!({"actions": [{"set_field": {}}]}), "`set_field`"),
        (json!({"actions": [{"output": 1, "max_len": 65536}]}), "`max_len`"),
        (json!({"actions": vec![json!({"output": 1}); ACTIONS_MAX + 1]}), "at most 32"),
        (json!({"tabel": 1}), "unknown field `tabel`"),
        (json!({"table": 256}), "256"),
        (json!({"command": "mirror"}), "unknown variant `mirror`"),
    ] {
        let said = read(rule.clone()).unwrap_err();
        assert!(said.contains(says), "{rule}: {said}");
    }
}

#[test]
fn what_a_switch_reports_in_other_words_is_shown_all_the_same() {
    let mut stats = reported(FlowMod::new(Command::Add, 0, 1));
    stats.cookie = rule::cookie("a");
    stats.instructions = vec![
        Instruction::WriteActions(vec![
            Action::Group(4),
            Action::PopVlan,
            Action::PushMpls(0x8847),
            Action::SetNwTtl(64),
            Action::Experimenter { experimenter: 0x2320, data: vec![] },
            Action::Other { action_type: 28, body: vec![0; 4] },
        ]),
        Instruction::ClearActions,
        Instruction::WriteMetadata { metadata: 1, mask: 0xff },
        Instruction::Other { instruction_type: 9, body: vec![0; 4] },
    ];
    let shown = flow(&stats, Some("a"));
    assert_eq!((&shown["own"], &shown["intent"]), (&json!(true), &json!("a")));
    let actions = json!([
        {"group": 4},
        {"pop_vlan": true},
        {"push_mpls": "0x8847"},
        {"set_nw_ttl": 64},
        {"experimenter": "0x00002320"},
        {"other": 28},
    ]);
    assert_eq!(shown["write_actions"], actions);
    assert_eq!(shown["write_metadata"], "0x1/0xff");
    assert_eq!((&shown["clear_actions"], &shown["other_instruction"]), (&json!(true), &json!(9)));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(field in "[a-z_0-9]{0,14}|eth_src|ipv4_dst|ipv6_src|in_port|metadata|udp_src", value in "[0-9a-fx:./LOCA]{0,30}") {
        if let Ok(flow_mod) = read(json!({"match": {field: value}})) {
            let shown = flow(&reported(flow_mod.clone()), None);
            let again = read(json!({"match": shown["match"]})).unwrap();
            proptest::prop_assert_eq!(again.pattern, flow_mod.pattern);
        }
    }
}
