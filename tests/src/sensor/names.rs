//! From the names and units that recordings use to Caregate's channels and metrics and to UCUM.

/// Waveform channels by the signal's name, in lower case.
const CHANNELS: [(&str, &str); 14] = [
    ("i", "ecg-i"),
    ("ii", "ecg-ii"),
    ("iii", "ecg-iii"),
    ("v", "ecg-v"),
    ("v1", "ecg-v1"),
    ("v5", "ecg-v5"),
    ("mlii", "ecg-mlii"),
    ("mcl1", "ecg-v1"),
    ("pleth", "pleth"),
    ("abp", "abp"),
    ("art", "abp"),
    ("resp", "resp"),
    ("ppg", "pleth"),
    ("ecg", "ecg-ii"),
];

/// Metrics by the signal's name, in lower case without spaces and punctuation.
const METRICS: [(&str, &str); 22] = [
    ("hr", "heart-rate"),
    ("pulse", "pulse-rate"),
    ("pr", "pulse-rate"),
    ("resp", "respiratory-rate"),
    ("rr", "respiratory-rate"),
    ("spo2", "spo2"),
    ("nbpsys", "systolic"),
    ("nbpdias", "diastolic"),
    ("nbpmean", "mean-pressure"),
    ("nbpsystolic", "systolic"),
    ("nbpdiastolic", "diastolic"),
    ("abpsys", "systolic"),
    ("abpdias", "diastolic"),
    ("abpmean", "mean-pressure"),
    ("nibpsys", "systolic"),
    ("nibpdias", "diastolic"),
    ("nibpmean", "mean-pressure"),
    ("temp", "temperature"),
    ("temperature", "temperature"),
    ("weight", "weight"),
    ("glucose", "glucose"),
    ("tblood", "temperature"),
];

/// The channel for a sampled signal.
pub(super) fn channel(signal: &str) -> Option<&'static str> {
    find(&CHANNELS, &signal.trim().to_ascii_lowercase())
}

/// The metric for a numeric signal.
pub(super) fn metric(signal: &str) -> Option<&'static str> {
    let plain: String =
        signal.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    find(&METRICS, &plain)
}

fn find(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

/// UCUM for a unit as recordings write it; what is unknown stays.
pub(super) fn ucum(unit: &str) -> &str {
    match unit.to_ascii_lowercase().as_str() {
        "mv" => "mV",
        "mmhg" => "mm[Hg]",
        "nu" | "nd" => "1",
        "bpm" | "pm" | "/min" => "/min",
        "%" => "%",
        "c" | "degc" | "deg_c" => "Cel",
        _ => unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_known_recordings() {
        let channels = ["MLII", "V5", "II", "V", "ABP", "PLETH", "RESP"].map(channel);
        let expected = ["ecg-mlii", "ecg-v5", "ecg-ii", "ecg-v", "abp", "pleth", "resp"];
        assert_eq!(channels, expected.map(Some));
        let metrics = ["HR", "PULSE", "RESP", "SpO2", "NBPSys", "NBP Dias", "NBPMean"].map(metric);
        let expected = [
            "heart-rate",
            "pulse-rate",
            "respiratory-rate",
            "spo2",
            "systolic",
            "diastolic",
            "mean-pressure",
        ];
        assert_eq!(metrics, expected.map(Some));
        assert_eq!((channel("CVP"), metric("CVP")), (None, None));
        assert_eq!(
            ["mV", "mmHg", "NU", "bpm", "pm", "%"].map(ucum),
            ["mV", "mm[Hg]", "1", "/min", "/min", "%"]
        );
    }
}
