//! The grammar of `header(5)`.

use proptest::prelude::*;

use super::*;

fn signals(text: &str) -> Vec<SignalSpec> {
    match parse_header(text).unwrap().body {
        Body::Signals(signals) => signals,
        Body::Segments(_) => panic!("segments"),
    }
}

fn error(text: &str) -> String {
    parse_header(text).unwrap_err().to_string()
}

#[test]
fn reads_every_field_of_a_signal_line() {
    let text = "# first\nr1 1 360/1000(5) 650000 12:00:00 01/02/2003\nr1.dat 212x2:3+24 1.25(-100)/mmHg 11 1024 995 -22131 0 a b\n#end";
    let header = parse_header(text).unwrap();
    assert_eq!((header.name.as_str(), header.frequency_hz, header.frames), ("r1", 360.0, Some(650_000)));
    let signal = &signals(text)[0];
    assert_eq!((signal.format, signal.per_frame, signal.skew, signal.byte_offset), (Format::F212, 2, 3, 24));
    assert_eq!((signal.gain, signal.baseline, signal.unit.as_str()), (1.25, -100, "mmHg"));
    assert_eq!((signal.adc_zero, signal.initial, signal.checksum), (1024, Some(995), Some(43_405)));
    assert_eq!((signal.description.as_str(), signal.line), ("a b", 3));
}

#[test]
fn fills_in_what_the_standard_says() {
    let signal = &signals("r 1\nr.dat 16\n")[0];
    assert_eq!((signal.gain, signal.baseline, signal.unit.as_str()), (200.0, 0, "mV"));
    let signal = &signals("r 1 250\nr.dat 16 0 12 7\n")[0];
    assert_eq!((signal.gain, signal.baseline), (200.0, 7));
    assert_eq!(parse_header("r 0\n").unwrap().frequency_hz, 250.0);
}

#[test]
fn reads_segments_and_gaps() {
    let Body::Segments(segments) = parse_header("m/2 1 125 30\n~ 10\nm1 20\n").unwrap().body else {
        panic!("signals")
    };
    assert!(segments[0].is_gap());
    assert_eq!((segments[1].name.as_str(), segments[1].frames), ("m1", 20));
}

#[test]
fn names_line_and_field() {
    assert_eq!(error(""), "line 1, record line: missing");
    assert_eq!(error("r"), "line 1, number of signals: missing");
    assert_eq!(error("r 1 250\n\nr.dat 310\n"), "line 3, format: format '310' is not one of 16, 80, 212");
    assert_eq!(error("r 2 250\nr.dat 16\n"), "line 1, signal line: missing");
    assert_eq!(error("r 1 250\n../x.dat 16\n"), "line 2, file name: '../x.dat' is not a plain name");
    assert_eq!(error("r 1 250\nr.dat 16 inf\n"), "line 2, ADC gain: 'inf' is not a number that fits here");
    assert_eq!(error("r 1 0\nr.dat 16\n"), "line 1, sampling frequency: '0' is not a number that fits here");
    assert_eq!(error("r 1\nr.dat 16\nmore 1\n"), "line 3, line: unexpected text");
    assert_eq!(error("r 65\n"), "line 1, number of signals: 65 is more than 64");
    assert_eq!(error("r 1\nr.dat 16 200 12 0 0 x\n"), "line 2, checksum: 'x' is not a number that fits here");
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,200}") {
        let _parsed = parse_header(&text);
    }

    #[test]
    fn never_panics_near_the_grammar(text in "[a-z~]{0,3}(/[0-9]{0,6})? [0-9]{0,2} [0-9./()-]{0,8} [0-9]{0,9}\n([a-z.~]{1,5} [0-9x:+]{0,9} [0-9./()a-z-]{0,9} [0-9 -]{0,20}\n){0,4}") {
        let _parsed = parse_header(&text);
    }
}
