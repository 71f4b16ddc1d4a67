//! Frames and their bytes.

use proptest::prelude::*;

use super::codec::decode_timing;
use super::*;
use crate::beat::BEAT_BYTES;
use crate::erasure::{ERASURE_BYTES, RECEIPT_BYTES};
use crate::offer::VERDICT_BYTES;

fn frame() -> impl Strategy<Value = Frame> {
    let record = proptest::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        any::<u16>().prop_map(|version| Frame::Hello { version }),
        any::<u16>().prop_map(|version| Frame::Welcome { version }),
        (0_u8..4, any::<bool>())
            .prop_map(|(lane, backlog)| Frame::Lane { lane: Lane::from_u8(lane).unwrap(), backlog }),
        (any::<u64>(), record.clone()).prop_map(|(position, record)| Frame::Data { position, record }),
        (any::<u64>(), record.clone()).prop_map(|(position, record)| Frame::Early { position, record }),
        any::<u64>().prop_map(|below| Frame::Durable { below }),
        proptest::collection::vec((any::<u32>(), any::<u32>()), 0..20).prop_map(|r| Frame::Ack {
            ranges: r.into_iter().map(|(a, b)| (u64::from(a), u64::from(a) + u64::from(b))).collect()
        }),
        (any::<u64>(), 1_u8..5)
            .prop_map(|(position, r)| Frame::Refuse { position, refusal: Refusal::from_u8(r).unwrap() }),
        (any::<[u8; 20]>(), any::<u64>(), any::<u64>(), 0_u8..3).prop_map(|(id, from, until, of)| {
            let of = decode_timing(of).unwrap();
            Frame::Subscribe { version: 1, recipient: RecipientId(id), from, until, of }
        }),
        any::<u64>().prop_map(|next| Frame::Subscribed { version: 1, next }),
        any::<u8>().prop_map(|byte| Frame::Beat { bytes: vec![byte; BEAT_BYTES] }),
        record.clone().prop_map(|bytes| Frame::Command { bytes }),
        any::<u8>().prop_map(|byte| Frame::Erase { request: vec![byte; ERASURE_BYTES] }),
        any::<u8>().prop_map(|byte| Frame::Erased { receipt: vec![byte; RECEIPT_BYTES] }),
        (any::<[u8; 32]>(), 1_u8..5).prop_map(|(request, r)| Frame::EraseRefused {
            request: RequestHash(request),
            refusal: EraseRefusal::from_u8(r).unwrap(),
        }),
        any::<u16>().prop_map(|version| Frame::Follow { version }),
        (any::<u64>(), record.clone()).prop_map(|(number, record)| Frame::Delivery { number, record }),
        later(record),
    ]
}

fn later(record: impl Strategy<Value = Vec<u8>> + Clone + 'static) -> impl Strategy<Value = Frame> {
    let place = (any::<u32>(), any::<u32>(), any::<u64>())
        .prop_map(|(generation, epoch, sequence)| HistoryPlace { generation, epoch, sequence });
    prop_oneof![
        (any::<[u8; 20]>(), 0_u8..32).prop_map(|(id, bits)| Frame::Preview {
            version: 1,
            recipient: RecipientId(id),
            classes: Classes::from_u8(bits).unwrap()
        }),
        record.clone().prop_map(|record| Frame::Provisional { record }),
        (any::<[u8; 20]>(), any::<[u8; 16]>(), 0_u8..5, any::<u32>(), any::<u32>(), place.clone()).prop_map(
            |(recipient, patient, class, from, until, at)| {
                let (recipient, patient) = (RecipientId(recipient), PatientId(patient));
                let class = DataClass::from_u8(class).unwrap();
                let question = Question { recipient, patient, class, from, until, at };
                Frame::History { version: 1, question }
            }
        ),
        (any::<[u8; 16]>(), proptest::collection::vec(any::<[u8; 16]>(), 1..20)).prop_map(|(id, tokens)| {
            let (recipient, patient) = (RecipientId([3; 20]), PatientId(id));
            let tokens = tokens.into_iter().map(Token).collect();
            Frame::Search { version: 1, recipient, patient, class: DataClass::Alarm, tokens }
        }),
        record.clone().prop_map(|record| Frame::Found { record }),
        record.prop_map(|record| Frame::Past { record }),
        any::<u64>().prop_map(|below| Frame::Passed { below }),
        proptest::option::of(place).prop_map(|next| Frame::PastEnd { next }),
        Just(Frame::TakesOffers),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|sealed| Frame::Offer { version: 1, sealed }),
        any::<u8>().prop_map(|byte| Frame::Verdict { bytes: vec![byte; VERDICT_BYTES] }),
        (1_u8..6).prop_map(|n| Frame::NotOffered { refusal: OfferRefusal::from_u8(n).unwrap() }),
        generations(),
    ]
}

fn generations() -> impl Strategy<Value = Frame> {
    let used = proptest::collection::btree_map(any::<u32>(), (any::<u32>(), any::<u32>()), 0..20);
    (any::<[u8; 16]>(), 0_u8..5, any::<u32>(), proptest::option::of((used, any::<bool>()))).prop_map(
        |(patient, class, from, told)| {
            let (patient, class) = (PatientId(patient), DataClass::from_u8(class).unwrap());
            let Some((used, more)) = told else { return Frame::AskGenerations { patient, class, from } };
            let used = used.into_iter().map(|(generation, (a, b))| Used {
                generation,
                first: a.min(b),
                last: a.max(b),
            });
            Frame::Generations { patient, class, used: used.collect(), more }
        },
    )
}

#[test]
fn generations_are_in_order_whole_and_bounded() {
    let used = |generation| Used { generation, first: 5, last: 5 };
    let frame = |used: Vec<Used>| Frame::Generations {
        patient: PatientId([1; 16]),
        class: DataClass::Vitals,
        used,
        more: false,
    };
    let decode = |frame: &Frame| Frame::decode(&frame.encode()[4..]);
    let most: Vec<_> = (0..GENERATIONS_TOLD_MAX).map(|n| used(u32::try_from(n).unwrap())).collect();
    assert_eq!(decode(&frame(most.clone())), Ok(frame(most.clone())));
    let too_many = [most, vec![used(u32::MAX)]].concat();
    for wrong in [too_many, vec![used(3), used(3)], vec![used(4), used(3)], vec![Used { last: 4, ..used(1) }]]
    {
        assert_eq!(decode(&frame(wrong)), Err(FrameError::Generations));
    }
    let bytes = frame(vec![used(1)]).encode();
    assert_eq!(Frame::decode(&bytes[4..bytes.len() - 1]), Err(FrameError::Generations));
}

proptest! {
    #[test]
    fn frames_come_back_whole_whatever_the_cuts(
        frames in proptest::collection::vec(frame(), 0..6),
        cut in 1_usize..50,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let mut framer = Framer::new();
        let mut got = Vec::new();
        for part in bytes.chunks(cut) {
            framer.push(part);
            while let Some(frame) = framer.next_frame().unwrap() {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, frames);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut framer = Framer::new();
        framer.push(&bytes);
        while let Ok(Some(_)) = framer.next_frame() {}
    }

    #[test]
    fn acknowledged_ranges_hold_just_the_positions(mut positions in proptest::collection::vec(0_u64..60, 0..50)) {
        let mut want = positions.clone();
        want.sort_unstable();
        want.dedup();
        let mut got = Vec::new();
        for frame in ack_frames(&mut positions) {
            if let Frame::Ack { ranges } = frame {
                got.extend(ranges.into_iter().flat_map(|(a, b)| a..=b));
            }
        }
        prop_assert_eq!(got, want);
    }
}

#[test]
fn golden_bytes() {
    let hello = Frame::Hello { version: 1 }.encode();
    assert_eq!(hex::encode(hello), "00000003010001");
    let data = Frame::Data { position: 258, record: vec![0xab] }.encode();
    assert_eq!(hex::encode(data), "0000000a040000000000000102ab");
    let early = Frame::Early { position: 258, record: vec![0xab] }.encode();
    assert_eq!(hex::encode(early), "0000000a0c0000000000000102ab");
    let durable = Frame::Durable { below: 259 }.encode();
    assert_eq!(hex::encode(durable), "000000090d0000000000000103");
    let ack = Frame::Ack { ranges: vec![(1, 2)] }.encode();
    assert_eq!(hex::encode(ack), "000000110500000000000000010000000000000002");
    let classes = Classes::of(&[DataClass::Alarm, DataClass::Activity]);
    let preview = Frame::Preview { version: 1, recipient: RecipientId([2; 20]), classes }.encode();
    assert_eq!(hex::encode(preview), format!("00000018140001{}09", "02".repeat(20)));
    let of = Some(Timing::Backlog);
    let subscribe =
        Frame::Subscribe { version: 1, recipient: RecipientId([2; 20]), from: 3, until: 4, of }.encode();
    let numbers = "00000000000000030000000000000004";
    assert_eq!(hex::encode(subscribe), format!("00000028100001{}{numbers}02", "02".repeat(20)));
    assert_eq!(hex::encode(Frame::Passed { below: 259 }.encode()), "000000091b0000000000000103");
    let place = HistoryPlace { generation: 1, epoch: 2, sequence: 3 };
    let end = Frame::PastEnd { next: Some(place) }.encode();
    assert_eq!(hex::encode(end), "00000012180100000001000000020000000000000003");
}

#[test]
fn offers_their_bounds_and_their_golden_bytes() {
    let offer = Frame::Offer { version: 1, sealed: vec![0xab; 2] }.encode();
    assert_eq!(hex::encode(offer), "000000050f0001abab");
    assert_eq!(hex::encode(Frame::TakesOffers.encode()), "000000010e");
    let refused = Frame::NotOffered { refusal: OfferRefusal::NotConnected }.encode();
    assert_eq!(hex::encode(refused), "000000021d02");
    let largest = Frame::Offer { version: 1, sealed: vec![7; OFFER_BYTES_MAX] };
    let mut framer = Framer::new();
    framer.push(&largest.encode());
    assert_eq!(framer.next_frame(), Ok(Some(largest)));
    let longer = [&[15, 0, 1], vec![7; OFFER_BYTES_MAX + 1].as_slice()].concat();
    assert_eq!(Frame::decode(&longer), Err(FrameError::Length(OFFER_BYTES_MAX + 1)));
    assert_eq!(Frame::decode(&[29, 6]), Err(FrameError::Value { field: "refusal", value: 6 }));
    assert_eq!(Frame::decode(&[28; VERDICT_BYTES]).unwrap_err().reason(), "truncated");
    assert_eq!(Frame::decode(&[14, 0]).unwrap_err().reason(), "truncated");
}

#[test]
fn classes_that_are_none_are_refused() {
    let frame = |bits: u8| Frame::decode(&[&[20, 0, 1], [2; 20].as_slice(), &[bits]].concat());
    assert!(frame(0x1f).is_ok());
    assert_eq!(frame(0x20), Err(FrameError::Value { field: "classes", value: 0x20 }));
    let all = Classes::of(&DataClass::ALL);
    assert!(DataClass::ALL.into_iter().all(|class| all.contains(class)));
    assert!(!Classes::of(&[DataClass::Vitals]).contains(DataClass::Alarm));
    assert_eq!(Frame::decode(&[24, 2]), Err(FrameError::Value { field: "more", value: 2 }));
    let subscribe = [&[16, 0, 1], [2; 36].as_slice(), &[3]].concat();
    assert_eq!(Frame::decode(&subscribe), Err(FrameError::Value { field: "timing", value: 3 }));
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_it_is_buffered() {
    let mut framer = Framer::new();
    framer.push(&[0xff; 4]);
    assert_eq!(framer.next_frame(), Err(FrameError::Length(0xffff_ffff)));
    framer = Framer::new();
    framer.push(&[0; 4]);
    assert_eq!(framer.next_frame(), Err(FrameError::Length(0)));
}

#[test]
fn a_range_that_goes_back_is_refused() {
    let mut bytes = vec![5];
    bytes.extend_from_slice(&9_u64.to_be_bytes());
    bytes.extend_from_slice(&8_u64.to_be_bytes());
    assert_eq!(Frame::decode(&bytes), Err(FrameError::Ranges));
}
