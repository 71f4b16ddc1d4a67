//! The decoders of `caregate-protocol`. Included by `protocol/tests/fuzz_regressions.rs` as well.

use caregate_protocol::alarm::Standing;
use caregate_protocol::audit::{self, Head, Line};
use caregate_protocol::beat::Beat;
use caregate_protocol::command::{Content, SignedCommand};
use caregate_protocol::datapath;
use caregate_protocol::entry;
use caregate_protocol::erasure::{Receipt, SignedErasure, SignedOrder};
use caregate_protocol::gap::SignedGap;
use caregate_protocol::head::SignedHead;
use caregate_protocol::id::{DeviceId, PatientId, RecipientId, SignerId, StreamName};
use caregate_protocol::offer::{self, Offer, OfferHash, SignedVerdict};
use caregate_protocol::openflow;
use caregate_protocol::payload::{self, Decoded};
use caregate_protocol::policy::{Mac, PolicyBundle, RelationshipId, delivery};
use caregate_protocol::reading;
use caregate_protocol::record::Record;
use caregate_protocol::search::{SignedTokens, Word};
use caregate_protocol::segment::Segment;
use caregate_protocol::tpm;
use caregate_protocol::uplink::{Frame, Framer};
use caregate_protocol::wrap::Wrap;
use ed25519_dalek::SigningKey;

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[
    ("payload_json", payload_json),
    ("payload_senml_json", payload_senml_json),
    ("payload_senml_cbor", payload_senml_cbor),
    ("payload_wave", payload_wave),
    ("payload_data_point", payload_data_point),
    ("payload_bridge", payload_bridge),
    ("topic", topic),
    ("readings_cbor", readings_cbor),
    ("segment", segment),
    ("wrap", wrap),
    ("uplink_frame", uplink_frame),
    ("policy_bundle", policy_bundle),
    ("policy_delivery", policy_delivery),
    ("openflow", openflow),
    ("datapath", datapath),
    ("standing", standing),
    ("beat", beat),
    ("gap", gap),
    ("head", head),
    ("erasure", erasure),
    ("core_entry", core_entry),
    ("command", command),
    ("offer", offer),
    ("tpm", tpm),
    ("audit_log", audit_log),
    ("search_tokens", search_tokens),
    ("id_text", id_text),
];

/// Ids as configurations, requests and topics have them. What is read has one spelling of our own, which reads the same.
pub fn id_text(data: &[u8]) {
    fn read<T: std::str::FromStr + std::fmt::Display + PartialEq>(text: &str) {
        if let Ok(id) = text.parse::<T>() {
            let again = id.to_string();
            assert!(again.parse().is_ok_and(|read: T| read == id), "{again}");
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    read::<DeviceId>(text);
    read::<StreamName>(text);
    read::<PatientId>(text);
    read::<RecipientId>(text);
    read::<SignerId>(text);
    read::<RelationshipId>(text);
    read::<Mac>(text);
}

/// A record of tokens that parses is the one that was signed, or its signature does not hold.
pub fn search_tokens(data: &[u8]) {
    let device = SigningKey::from_bytes(&[3; 32]);
    if let Ok(signed) = SignedTokens::decode(data)
        && signed.verify(&device.verifying_key()).is_ok()
    {
        assert_eq!(signed.tokens.sign(&device).as_slice(), data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let names = text.strip_prefix("priority:").unwrap_or(text);
        assert!(
            Word::parse(text).is_none()
                || names.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        );
    }
}

/// What a TPM answers, and what is kept of it.
pub fn tpm(data: &[u8]) {
    if let Some(Ok(length)) = data.first_chunk().map(tpm::response_length) {
        assert!(length <= tpm::MESSAGE_BYTES_MAX);
    }
    drop((tpm::loaded(data), tpm::unsealed(data), tpm::flushed(data)));
    if let Ok(sealed) = tpm::created(data) {
        assert_eq!(tpm::Sealed::decode(&sealed.encode()), Ok(sealed));
    }
    if let Ok(sealed) = tpm::Sealed::decode(data) {
        assert_eq!(sealed.encode(), data);
    }
}

/// When the gateway received it, in Unix microseconds.
const RECEIVED_US: i64 = 1_790_000_000_000_000;

/// What is decoded can be sealed and read back; what is not says why.
fn payload(topic: &str, data: &[u8]) {
    match payload::decode(topic, data, RECEIVED_US) {
        Ok(Decoded::Readings(readings)) => {
            let sealed = reading::encode(&readings);
            assert_eq!(reading::decode(&sealed).as_ref(), Ok(&readings));
            for reading in &readings {
                assert_eq!(reading::fingerprint(reading).is_some(), reading.sensor_time_us.is_some());
            }
        }
        Ok(Decoded::Meta(_) | Decoded::Status(_)) => {}
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Plain JSON: numbers, events and what a device says of itself.
pub fn payload_json(data: &[u8]) {
    for leaf in ["num/heart-rate", "num/glucose", "num/temperature", "event/fall", "meta", "status"] {
        payload(&format!("vitals/v1/hub-1/{leaf}"), data);
    }
}

/// SenML packs in JSON.
pub fn payload_senml_json(data: &[u8]) {
    payload("vitals/v1/hub-1/num/senml", data);
}

/// SenML packs in CBOR.
pub fn payload_senml_cbor(data: &[u8]) {
    payload("vitals/v1/hub-1/num/senml", data);
}

/// Waveform chunks, of a channel with conversions and of one without.
pub fn payload_wave(data: &[u8]) {
    payload("vitals/v1/hub-1/wave/ecg-ii", data);
    payload("vitals/v1/hub-1/wave/abp", data);
}

/// Open mHealth data points.
pub fn payload_data_point(data: &[u8]) {
    payload("vitals/v1/hub-1/num/omh", data);
}

/// What bridges from Bluetooth emit.
pub fn payload_bridge(data: &[u8]) {
    payload("vitals/v1/hub-1/BTtoMQTT/A4C138000001", data);
}

/// What a gateway's watch says.
pub fn standing(data: &[u8]) {
    match Standing::decode(data) {
        Ok(standing) => {
            assert_eq!(Standing::decode(&standing.encode()).as_ref(), Ok(&standing));
            assert!(standing.alarms.iter().all(|alarm| alarm.text().starts_with('*')));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Gaps that are told.
pub fn gap(data: &[u8]) {
    let key = SigningKey::from_bytes(&[3; 32]).verifying_key();
    match SignedGap::decode(data) {
        Ok(signed) => {
            assert!(signed.verify(&key).is_err(), "nobody signs with this key");
            assert!(signed.gap.missing.first <= signed.gap.missing.last);
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Heads of chains.
pub fn head(data: &[u8]) {
    let key = SigningKey::from_bytes(&[3; 32]).verifying_key();
    match SignedHead::decode(data) {
        // Nobody signs with this key but the seed.
        Ok(signed) => assert!(signed.verify(&key).is_err() || signed.head.next == 7),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Policy by way of the core, as a gateway finds it in the envelope, and gateways' verdicts.
pub fn offer(data: &[u8]) {
    let device = SigningKey::from_bytes(&[3; 32]);
    match Offer::decode_plain(data) {
        Ok(offer) => assert_eq!([&[offer.kind as u8], offer.message.as_slice()].concat(), data),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
    // Nobody seals to this key but the seed, and nobody has it but here.
    if let Ok(opened) = Offer::open(data, &device) {
        assert_eq!(opened.message, [7; 9]);
    }
    assert!(
        offer::addressee(data)
            .map_or_else(|error| !error.reason().is_empty(), |signer| data[8..16] == signer.0)
    );
    match SignedVerdict::decode(data) {
        Ok(signed) => {
            let (offer, verdict) = (signed.offer, signed.verdict.clone());
            if signed.verify(offer, &device.verifying_key()).is_ok() {
                assert_eq!(SignedVerdict::sign(&verdict, offer, &device).as_slice(), data);
                assert_eq!(offer, OfferHash([9; 32]));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Orders and requests for erasure and their receipts.
pub fn erasure(data: &[u8]) {
    let key = SigningKey::from_bytes(&[3; 32]).verifying_key();
    match SignedErasure::decode(data) {
        // Nobody signs with this key but the seed.
        Ok(signed) => assert!(signed.verify(&key).is_err() || signed.erasure.made_us == 7),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
    match Receipt::verify(data) {
        Ok((receipt, issuer)) => assert!(issuer != key || receipt.erased_us == 8),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
    match SignedOrder::decode(data) {
        Ok(order) => assert_eq!(order.encode().as_slice(), data),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Entries of the core's stream, and floors in them. What is read is written back the same.
pub fn core_entry(data: &[u8]) {
    match entry::Floor::decode(data) {
        Ok(floor) => assert_eq!(floor.encode(), data),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
    match entry::decode(data) {
        Ok(entries) => {
            let mut again = entry::message();
            for one in &entries {
                assert_eq!(entry::encode(&mut again, one.index, &one.queued, one.record), one.offset);
            }
            assert_eq!(again, data);
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Heartbeats.
pub fn beat(data: &[u8]) {
    let key = SigningKey::from_bytes(&[3; 32]).verifying_key();
    match Beat::decode(data) {
        // Nobody signs with this key but the seed.
        Ok(beat) => assert!(beat.verify(&key).is_err() || beat.counter == 7),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Staff's commands: sealed, what was sealed, and who does what.
pub fn command(data: &[u8]) {
    let device = SigningKey::from_bytes(&[3; 32]);
    if let Err(error) = SignedCommand::open(data, &device) {
        assert!(!error.to_string().is_empty() && !error.reason().is_empty());
    }
    if let Ok(signed) = SignedCommand::decode_plain(data) {
        let sealed = signed.seal(&device.verifying_key());
        assert!(sealed.is_err() || SignedCommand::open(&sealed.unwrap_or_default(), &device) == Ok(signed));
    }
    if let Ok(content) = Content::decode(data) {
        assert_eq!(Content::decode(&content.encode()), Ok(content.clone()));
        if let Err(error) = content.action.check() {
            assert!(!error.to_string().is_empty() && !error.reason().is_empty());
        }
    }
}

/// Topics. What is taken apart was all there.
pub fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(topic) = payload::topic::parse(text) {
        assert!(text.starts_with(&format!("{}{}/", payload::topic::PREFIX, topic.device)));
    }
    payload(text, b"{\"v\":1}");
}

/// The plaintext of segments.
pub fn readings_cbor(data: &[u8]) {
    match reading::decode(data) {
        Ok(readings) => assert_eq!(reading::decode(&reading::encode(&readings)), Ok(readings)),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Sealed segments, and the record that carries them.
pub fn segment(data: &[u8]) {
    match Segment::decode(data) {
        Ok(segment) => {
            assert!(matches!(Record::decode(data), Ok(Record::Segment(_))));
            assert_eq!(segment.hash(), segment.clone().hash());
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Wraps, and the record that carries them.
pub fn wrap(data: &[u8]) {
    match Wrap::decode(data) {
        Ok(_) => assert!(matches!(Record::decode(data), Ok(Record::Wrap(_)))),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
    let mut framer = Framer::new();
    let mut frames = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty() && !error.reason().is_empty());
                    return frames;
                }
            }
        }
    }
    frames
}

/// The uplink's byte stream, whole and in small pieces.
pub fn uplink_frame(data: &[u8]) {
    let whole = frames([data]);
    assert_eq!(frames(data.chunks(7)), whole);
    for frame in whole {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes[4..]).as_ref(), Ok(&frame));
    }
}

/// Policy bundles. What is written back reads the same.
pub fn policy_bundle(data: &[u8]) {
    match PolicyBundle::decode(data) {
        Ok(bundle) => {
            // In the shortest form, it may be shorter than it came, and is never longer.
            let bytes = bundle.encode();
            assert!(bytes.len() <= data.len());
            assert_eq!(PolicyBundle::decode(&bytes), Ok(bundle));
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// Frames of the policy connection, length first.
pub fn policy_delivery(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk() else { return };
    let frame = delivery::frame_length(*head).and_then(|length| {
        delivery::Frame::decode(body.get(..length).ok_or(delivery::FrameError::Length(length))?)
    });
    match frame {
        Ok(frame) => assert_eq!(delivery::Frame::decode(&frame.encode()[4..]), Ok(frame)),
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
}

/// The OpenFlow byte stream.
pub fn openflow(data: &[u8]) {
    let mut framer = openflow::Framer::new();
    let mut left = data;
    loop {
        let taken = framer.accept(left);
        left = &left[taken..];
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => openflow_message(frame),
                Ok(None) => break,
                Err(_lost) => return,
            }
        }
        if left.is_empty() {
            return;
        }
    }
}

fn openflow_message(frame: &[u8]) {
    match openflow::Message::decode(frame) {
        Ok((xid, message)) => {
            openflow_checked(&message);
            if let Ok(bytes) = message.encode(xid) {
                assert_eq!(
                    openflow::Message::decode(&bytes).map_err(|e| e.to_string()),
                    Ok((xid, message.clone()))
                );
            }
            if let openflow::Message::MultipartReply(reply) = message {
                openflow_reply(reply.body);
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let Some(answer) = error.answer(frame) {
                let encoded = openflow::Message::Error(answer).encode(1).map(|bytes| bytes.len());
                assert!(encoded.is_ok_and(|bytes| bytes <= 12 + 64));
            }
        }
    }
}

/// A flow's match is allowed, or has one of the standard's errors; what it would match is within the fields' widths.
fn openflow_checked(message: &openflow::Message) {
    let openflow::Message::FlowMod(openflow::FlowMod { pattern, .. }) = message else { return };
    if let Err(code) = pattern.check() {
        return assert!(openflow::ErrorKind::NAMED.contains(&openflow::ErrorKind::BadMatch(code)));
    }
    for (field, masked) in pattern.iter() {
        assert!(masked.value & !masked.mask == 0 && masked.mask & !field.ones() == 0);
    }
    let canonical = pattern.canonical();
    assert_eq!(canonical.canonical(), canonical);
    assert!(pattern.iter().all(|(field, masked)| canonical.get(field) == Some(masked)));
}

/// What is split comes together again.
fn openflow_reply(body: openflow::multipart::ReplyBody) {
    let mut assembler = openflow::multipart::Assembler::new();
    let mut whole = None;
    for part in body.clone().split() {
        assert!(whole.is_none());
        whole = assembler.accept(1, part).expect("parts of one kind");
    }
    assert_eq!(whole, Some(body));
}

/// The stream between daemon and helper, both ways, whole and in small pieces.
pub fn datapath(data: &[u8]) {
    let cut = |size: usize| {
        let mut framer = datapath::Framer::new();
        let mut frames = Vec::new();
        for piece in data.chunks(size) {
            framer.push(piece);
            loop {
                match framer.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => {
                        assert!(!error.to_string().is_empty() && !error.reason().is_empty());
                        return frames;
                    }
                }
            }
        }
        frames
    };
    let frames = cut(data.len().max(1));
    assert_eq!(cut(7), frames);
    for frame in &frames {
        if let Ok(request) = datapath::ToHelper::decode(frame) {
            assert_eq!(datapath::ToHelper::decode(&request.encode()[4..]), Ok(request));
        }
        if let Ok(answer) = datapath::FromHelper::decode(frame) {
            assert_eq!(datapath::FromHelper::decode(&answer.encode()[4..]), Ok(answer));
        }
    }
}

/// An audit log: a line has one form, and a log that is whole is one that appending its entries makes.
pub fn audit_log(data: &[u8]) {
    for bytes in data.split(|byte| *byte == b'\n') {
        match Line::decode(bytes) {
            Ok(line) => assert_eq!(line.encode().as_deref(), Ok(bytes)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Ok(log) = audit::verify::chain(data, u64::from(data.first().copied().unwrap_or(0))) {
        let first = log.lines.first().map_or(1, |line| line.n);
        assert_eq!(log.head.n, first - 1 + log.lines.len() as u64);
    }
    let agree = |lines: &[Line]| {
        drop(audit::verify::agree(RecipientId([5; 20]), lines, lines, &[lines]));
        drop(audit::verify::uncovered(RecipientId([5; 20]), lines, lines, &[lines]));
    };
    if let Ok(log) = audit::verify::newer(data) {
        agree(&log.lines);
    }
    match audit::verify::log(data, &[]) {
        Ok(log) => {
            let (mut head, mut text) = (Head::default(), Vec::new());
            let appended = |line: &Line| head.append(&line.entry, &mut text).is_ok();
            assert!(log.lines.iter().all(appended));
            assert_eq!(
                (head, text.strip_suffix(b"\n").unwrap_or(&text)),
                (log.head, data.strip_suffix(b"\n").unwrap_or(data))
            );
            assert_eq!(audit::verify::newer(data).map(|newer| newer.head), Ok(log.head));
            agree(&log.lines);
        }
        Err(fault) => assert!(fault.entry() >= 1 && !fault.reason().is_empty()),
    }
}
