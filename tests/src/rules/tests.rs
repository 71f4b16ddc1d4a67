use super::*;

const SIZES: [usize; 5] = [16, 64, 256, 1024, 4096];

fn sets() -> impl Iterator<Item = (Kind, usize)> {
    [Kind::Acl, Kind::Wide].into_iter().flat_map(|kind| SIZES.map(|size| (kind, size)))
}

#[test]
fn the_frame_matches_the_last_flow_alone() {
    for (kind, size) in sets() {
        let flows = generate(kind, size, SEED);
        assert_eq!(flows.len(), size);
        let met: Vec<usize> = (0..size).filter(|at| flows[*at].may_match(&key())).collect();
        assert_eq!(met, [size - 1], "{kind:?} {size}");
    }
    let flows = mixed(4096, SEED);
    assert_eq!((flows.len(), flows[4095].outcome), (4096, Outcome::Output));
    assert_eq!(flows.iter().filter(|flow| flow.may_match(&key())).count(), 1);
}

#[test]
fn priorities_fall_and_no_match_is_there_twice() {
    for (kind, size) in sets() {
        let flows = generate(kind, size, SEED);
        assert!(flows.windows(2).all(|pair| pair[0].priority > pair[1].priority));
        let matches: std::collections::HashSet<_> = flows.iter().map(|flow| &flow.fields).collect();
        assert_eq!(matches.len(), size, "{kind:?}");
    }
}

#[test]
fn the_wide_set_has_many_masks_and_the_same_seed_gives_the_same() {
    let wide = generate(Kind::Wide, 256, SEED);
    assert!(masks(&wide) >= 16, "{}", masks(&wide));
    assert_eq!(wide, generate(Kind::Wide, 256, SEED));
    assert_ne!(wide, generate(Kind::Wide, 256, SEED + 1));
}

/// What is said to a switch must be what the helper is told: checked as the agent checks it.
#[test]
fn flow_mods_are_good_and_say_the_same_as_entries() {
    for (kind, size) in sets() {
        for flow in generate(kind, size, SEED) {
            let message = flow.flow_mod(1).unwrap();
            message.pattern.check().unwrap();
            let entry = flow.entry(7, 1);
            assert!(entry.value.iter().zip(&entry.mask).all(|(value, mask)| value & !mask == 0));
            let bits = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
            let said: u32 = message.pattern.iter().map(|(_, masked)| masked.mask.count_ones()).sum();
            assert_eq!(bits(&entry.mask), said, "{}", message.pattern);
        }
    }
}

#[test]
fn the_frame_is_a_good_one() {
    let sum: u32 = FRAME[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the IPv4 header's checksum");
    let mut varied = FRAME;
    varied[VARIED].copy_from_slice(&[9; 4]);
    let mut parsed = Parsed::default();
    parse(&varied[..], &mut parsed);
    assert_ne!(parsed.key[3], key()[3], "a cache of flows takes it for another");
}
