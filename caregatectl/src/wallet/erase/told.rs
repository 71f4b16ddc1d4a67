//! What a gateway says of an erasure, held against what was ordered: whose receipts count, who has not answered, and what is left.

use anyhow::{Context as _, bail, ensure};
use caregate_protocol::erasure::{Issuer, Receipt, SignedErasure};
use caregate_protocol::id::{PatientId, RecipientId};
use caregate_protocol::segment::signer_id;
use ed25519_dalek::VerifyingKey;
use ledger_client::wallet::Wallet;
use serde::Deserialize;
use serde_json::{Value, json};

/// As the gateway answers.
#[derive(Debug, Deserialize)]
struct Answer {
    request: Option<String>,
    receipts: Vec<String>,
    core_refuses: Option<String>,
    shares: Vec<Shares>,
    salts_left: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Shares {
    at_s: u64,
    threshold: u8,
    shares: u8,
}

/// A receipt that verifies and is of this request.
#[derive(Debug)]
struct Held {
    receipt: Receipt,
    key: VerifyingKey,
    bytes: String,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Told {
    request: String,
    held: Vec<Held>,
    core_refuses: Option<String>,
    shares: Vec<Shares>,
    salts_left: Option<String>,
    /// To whom the patient ever granted: the wallet's name, and the recipient.
    grantees: Vec<(String, RecipientId)>,
}

fn held(bytes: &str, signed: &SignedErasure) -> anyhow::Result<Held> {
    let raw = hex::decode(bytes).context("a receipt is not hexadecimal")?;
    let (receipt, key) = Receipt::verify(&raw).context("a receipt")?;
    ensure!(receipt.patient == signed.erasure.patient, "a receipt is of another patient");
    ensure!(receipt.request == signed.hash(), "a receipt is of another request");
    if receipt.issuer == Issuer::Gateway {
        ensure!(
            signer_id(&key) == signed.signer,
            "the gateway's receipt is signed by another key than its request"
        );
        signed.verify(&key).context("the gateway's request")?;
    }
    Ok(Held { receipt, key, bytes: bytes.to_owned() })
}

impl Told {
    /// Reads an answer; each receipt in it must be of what was ordered.
    pub(super) fn new(answer: &Value, patient: PatientId, wallet: &Wallet) -> anyhow::Result<Self> {
        let answer = Answer::deserialize(answer).context("the gateway's answer")?;
        let Some(request) = answer.request else { bail!("the gateway's answer has no request") };
        let raw = hex::decode(&request).context("the gateway's request is not hexadecimal")?;
        let signed = SignedErasure::decode(&raw).context("the gateway's request")?;
        ensure!(signed.erasure.patient == patient, "the gateway's request is of another patient");
        let held = answer.receipts.iter().map(|bytes| held(bytes, &signed)).collect::<anyhow::Result<_>>()?;
        let granted = wallet.relationships.iter().filter(|known| known.granted > 0);
        let grantees = granted.map(|known| (known.label.clone(), known.grantee)).collect();
        let Answer { core_refuses, shares, salts_left, .. } = answer;
        Ok(Self { request, held, core_refuses, shares, salts_left, grantees })
    }

    pub(super) fn request(&self) -> &str {
        &self.request
    }

    pub(super) fn salts_left(&self) -> Option<&str> {
        self.salts_left.as_deref()
    }

    fn has(&self, is_it: impl Fn(&Receipt) -> bool) -> bool {
        self.held.iter().any(|held| is_it(&held.receipt))
    }

    /// Who has not answered, and what is known of it.
    pub(super) fn waiting(&self, home: &str) -> Vec<Value> {
        let mut waiting = Vec::new();
        if !self.has(|receipt| receipt.issuer == Issuer::Gateway) {
            let why = "the root is destroyed; what waited for the core is being let go";
            waiting.push(json!({ "by": "gateway", "name": home, "why": why }));
        }
        if !self.has(|receipt| receipt.issuer == Issuer::Core) {
            let why = match &self.core_refuses {
                Some(word) => format!("it refuses: {word}"),
                None => "the gateway has not heard it; it asks on each connection".to_owned(),
            };
            waiting.push(json!({ "by": "core", "name": null, "why": why }));
        }
        let mut asked = Vec::new();
        for (label, grantee) in &self.grantees {
            let answers = |receipt: &Receipt| receipt.issuer == Issuer::Feed && receipt.recipient == *grantee;
            if !self.has(answers) && !asked.contains(grantee) {
                asked.push(*grantee);
                let why = "its feed is told where the core has a key for it; one that never had any has nothing to erase";
                waiting.push(
                    json!({ "by": "feed", "name": label, "recipient": grantee.to_string(), "why": why }),
                );
            }
        }
        waiting
    }

    fn name(&self, receipt: &Receipt, home: &str) -> String {
        match receipt.issuer {
            Issuer::Gateway => home.to_owned(),
            Issuer::Core => String::new(),
            Issuer::Feed => {
                let known = self.grantees.iter().find(|(_, grantee)| *grantee == receipt.recipient);
                known.map_or_else(|| receipt.recipient.to_string(), |(label, _)| label.clone())
            }
        }
    }

    /// What was erased by whom. `pinned`: keys that the patient knows by another way.
    pub(super) fn erased(&self, home: &str, pinned: &[String]) -> Vec<Value> {
        let one = |held: &Held| {
            let Held { receipt, key, bytes } = held;
            let recipient = (receipt.issuer == Issuer::Feed).then(|| receipt.recipient.to_string());
            json!({
                "by": receipt.issuer.as_str(), "name": self.name(receipt, home), "recipient": recipient,
                "key": hex::encode(key.as_bytes()), "key_is_known": is_pinned(key, pinned),
                "records": receipt.records, "bytes": receipt.bytes, "erased_us": receipt.erased_us, "receipt": bytes,
            })
        };
        self.held.iter().map(one).collect()
    }

    /// Shares that were made of the root, with people by now.
    pub(super) fn shares_out(&self) -> Vec<Value> {
        let one = |of: &Shares| json!({ "at_s": of.at_s, "threshold": of.threshold, "shares": of.shares });
        self.shares.iter().map(one).collect()
    }

    /// The same for a person.
    pub(super) fn text(&self, home: &str, pinned: &[String], beyond: &[&str]) -> String {
        let mut lines =
            vec![format!("the root at {home} is destroyed, for good. Erased, by signed receipts:")];
        for Held { receipt, key, .. } in &self.held {
            let known = if is_pinned(key, pinned) { "known" } else { "not compared" };
            lines.push(format!(
                "- {} {}: {} records, {} bytes (key {}, {known})",
                receipt.issuer.as_str(),
                self.name(receipt, home),
                receipt.records,
                receipt.bytes,
                hex::encode(key.as_bytes()),
            ));
        }
        let waiting = self.waiting(home);
        if !waiting.is_empty() {
            lines.push("Not answered yet; run it again for their receipts:".into());
        }
        for one in &waiting {
            let word = |key: &str| one[key].as_str().unwrap_or_default();
            lines.push(format!("- {} {}: {}", word("by"), word("name"), word("why")));
        }
        lines.push("Beyond reach are:".into());
        lines.extend(beyond.iter().map(|line| format!("- {line}")));
        for Shares { threshold, shares, at_s } in &self.shares {
            lines.push(format!("- {shares} shares of the root, of which {threshold} make it again, made at {at_s} (Unix seconds)"));
        }
        if let Some(why) = &self.salts_left {
            lines.push(format!(
                "- the salts in the gateway's enrolment, which its operator is to take out: {why}"
            ));
        }
        lines.join("\n")
    }
}

fn is_pinned(key: &VerifyingKey, pinned: &[String]) -> bool {
    let key = hex::encode(key.as_bytes());
    pinned.iter().any(|known| known.trim_start_matches("0x").eq_ignore_ascii_case(&key))
}

#[cfg(test)]
mod tests {
    use caregate_protocol::erasure::{Erasure, NOBODY, RequestHash};
    use ed25519_dalek::SigningKey;
    use ledger_client::wallet::PatientSeed;

    use super::*;

    const PATIENT: PatientId = PatientId([1; 16]);
    const CITY: RecipientId = RecipientId([2; 20]);

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn receipt(issuer: Issuer, recipient: RecipientId, request: &[u8], by: u8) -> String {
        let request = RequestHash::of(request);
        let receipt =
            Receipt { issuer, patient: PATIENT, request, records: 3, bytes: 9, erased_us: 7, recipient };
        hex::encode(receipt.sign(&key(by)))
    }

    fn wallet() -> Wallet {
        let mut wallet = Wallet::new(PatientSeed::generate());
        wallet.add_relationship("City", CITY).unwrap();
        wallet.add_relationship("Never granted", RecipientId([3; 20])).unwrap();
        wallet.note_versions("City", 1, 0).unwrap();
        wallet
    }

    fn told(request: &[u8], receipts: &[String]) -> anyhow::Result<Told> {
        let answer = json!({
            "request": hex::encode(request), "receipts": receipts, "core_refuses": null, "salts_left": null,
            "shares": [{ "at_s": 5, "threshold": 2, "shares": 3 }],
        });
        Told::new(&answer, PATIENT, &wallet())
    }

    #[test]
    fn who_has_answered_and_who_has_not_is_said_by_name() {
        let request = Erasure { patient: PATIENT, made_us: 7 }.sign(&key(9));
        let none = told(&request, &[]).unwrap();
        let by = |told: &Told| told.waiting("g").iter().map(|one| one["by"].to_string()).collect::<String>();
        assert_eq!(by(&none), r#""gateway""core""feed""#);
        let all = [
            receipt(Issuer::Gateway, NOBODY, &request, 9),
            receipt(Issuer::Core, NOBODY, &request, 10),
            receipt(Issuer::Feed, CITY, &request, 11),
        ];
        let whole = told(&request, &all).unwrap();
        assert!(whole.waiting("g").is_empty());
        let known = hex::encode(key(11).verifying_key().as_bytes());
        let erased = whole.erased("g", &[known]);
        assert_eq!((&erased[2]["name"], &erased[2]["key_is_known"]), (&json!("City"), &json!(true)));
        assert_eq!((&erased[0]["name"], &erased[0]["key_is_known"]), (&json!("g"), &json!(false)));
        let text = whole.text("g", &[], &["this and that"]);
        assert!(
            text.contains("- feed City: 3 records, 9 bytes") && text.contains("- this and that"),
            "{text}"
        );
        assert!(text.contains("3 shares of the root, of which 2 make it again"), "{text}");
        let text = none.text("g", &[], &[]);
        assert!(text.contains("Not answered yet") && text.contains("- feed City: "), "{text}");
    }

    #[test]
    fn a_receipt_that_is_not_of_this_order_is_refused_by_name() {
        let request = Erasure { patient: PATIENT, made_us: 7 }.sign(&key(9));
        let other = Erasure { patient: PATIENT, made_us: 8 }.sign(&key(9));
        let of_another = Erasure { patient: PatientId([5; 16]), made_us: 7 }.sign(&key(9));
        let mut forged = receipt(Issuer::Core, NOBODY, &request, 10);
        forged.replace_range(120..121, if &forged[120..121] == "0" { "1" } else { "0" });
        for (request, receipts, sentence) in [
            (request, vec![receipt(Issuer::Core, NOBODY, &other, 10)], "another request"),
            (request, vec![receipt(Issuer::Gateway, NOBODY, &request, 10)], "another key than its request"),
            (request, vec![forged], "signature does not verify"),
            (request, vec!["zz".to_owned()], "not hexadecimal"),
            (of_another, Vec::new(), "of another patient"),
        ] {
            let refused = format!("{:#}", told(&request, &receipts).unwrap_err());
            assert!(refused.contains(sentence), "{sentence}: {refused}");
        }
    }
}
