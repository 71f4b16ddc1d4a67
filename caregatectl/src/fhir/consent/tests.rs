use caregate_protocol::policy::Grant;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const RELATIONSHIP_ID: RelationshipId = RelationshipId([0xab; 32]);
const HOSPITAL: RecipientId = RecipientId([5; 20]);

fn grant(classes: u32, purposes: u32, from: u64, seconds: u64, stale_bound_s: u32, version: u64) -> Grant {
    Grant {
        relationship: RELATIONSHIP_ID,
        grantee: HOSPITAL,
        classes,
        purposes,
        from,
        until: from + seconds,
        stale_bound_s,
        version,
    }
}

fn consent() -> Value {
    of_grant(&grant(0b101, 0b001, 1_790_000_000, 86_400, 3_600, 3), true).unwrap()
}

fn read(consent: &Value) -> Result<Terms, Refusal> {
    terms(consent, &RELATIONSHIP_ID, &HOSPITAL, 7)
}

/// Each object of a JSON value, by pointer and FHIRPath.
fn objects(value: &Value, pointer: &str, path: &str, found: &mut Vec<(String, String)>) {
    if let Value::Object(map) = value {
        found.push((pointer.to_owned(), path.to_owned()));
        map.iter().for_each(|(name, value)| {
            objects(value, &format!("{pointer}/{name}"), &format!("{path}.{name}"), found);
        });
    } else if let Value::Array(entries) = value {
        entries.iter().enumerate().for_each(|(at, value)| {
            objects(value, &format!("{pointer}/{at}"), &format!("{path}[{at}]"), found);
        });
    }
}

proptest! {
    #[test]
    fn a_grant_comes_back_from_fhir(
        classes in 1_u32..32, purposes in 1_u32..8, from in 0_u64..200_000_000_000, seconds in 1_u64..400_000_000,
        stale_bound_s in 0_u32..=86_400, version in any::<u64>(),
    ) {
        let grant = grant(classes, purposes, from, seconds, stale_bound_s, version);
        let terms = read(&of_grant(&grant, true).unwrap()).unwrap();
        let expected = Terms { classes, purposes, from, until: from + seconds, stale_bound_s };
        prop_assert_eq!(terms, expected);
    }
}

/// Whatever is added anywhere is refused, and pointed at.
#[test]
fn nothing_is_passed_over() {
    let good = consent();
    let mut places = Vec::new();
    objects(&good, "", "Consent", &mut places);
    assert!(places.len() > 20, "{}", places.len());
    for (pointer, path) in places {
        let mut changed = good.clone();
        changed.pointer_mut(&pointer).unwrap()["modifierExtension"] = json!([{ "url": "urn:x" }]);
        let refusal = read(&changed).unwrap_err();
        assert_eq!(refusal.path, format!("{path}.modifierExtension[0]"), "{refusal}");
    }
}

/// Whatever is taken away is missed, but for what may be absent.
#[test]
fn nothing_is_made_up() {
    let optional = ["/id", "/identifier", "/patient", "/provision/extension"];
    let (good, mut places) = (consent(), Vec::new());
    objects(&good, "", "Consent", &mut places);
    for (pointer, _) in places {
        let names: Vec<_> = good.pointer(&pointer).unwrap().as_object().unwrap().keys().cloned().collect();
        for name in names {
            let mut changed = good.clone();
            changed.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(&name);
            let gone = format!("{pointer}/{name}");
            assert_eq!(read(&changed).is_ok(), optional.contains(&gone.as_str()), "{gone}");
        }
    }
    let mut without = good;
    without["provision"].as_object_mut().unwrap().remove("extension");
    assert_eq!(read(&without).unwrap().stale_bound_s, 7);
}

#[test]
fn what_a_grant_cant_express_is_refused_by_its_path() {
    let cases: &[(&str, Value, &str)] = &[
        ("/status", json!("proposed"), "Consent.status"),
        ("/resourceType", json!("Observation"), "Consent.resourceType"),
        ("/dateTime", json!("2026-11-25"), "Consent.dateTime"),
        ("/performer", json!([{ "display": "x" }]), "Consent.performer[0]"),
        ("/provision/provision", json!([{ "type": "deny" }]), "Consent.provision.provision[0]"),
        ("/provision/dataPeriod", json!({ "start": "2026" }), "Consent.provision.dataPeriod"),
        ("/provision/securityLabel", json!([{ "code": "R" }]), "Consent.provision.securityLabel[0]"),
        ("/provision/type", json!("deny"), "Consent.provision.type"),
        ("/provision/period/end", json!("2027-01"), "Consent.provision.period.end"),
        ("/provision/period/end", json!("2020-01-01T00:00:00Z"), "Consent.provision.period.end"),
        ("/provision/period/start", json!(5), "Consent.provision.period.start"),
        ("/provision/purpose/0/code", json!("HMARKT"), "Consent.provision.purpose[0].code"),
        ("/provision/purpose/0/system", json!("urn:x"), "Consent.provision.purpose[0].system"),
        ("/provision/purpose", json!([]), "Consent.provision.purpose"),
        ("/provision/class/1/code", json!("all"), "Consent.provision.class[1].code"),
        ("/provision/class/1", json!({ "code": "vitals" }), "Consent.provision.class[1].system"),
        ("/provision/action/0/coding/0/code", json!("use"), "Consent.provision.action[0].coding[0].code"),
        ("/provision/extension/0/url", json!("urn:x"), "Consent.provision.extension[0].url"),
        (
            "/provision/extension/0/valueUnsignedInt",
            json!(-1),
            "Consent.provision.extension[0].valueUnsignedInt",
        ),
        (
            "/provision/actor/0/reference/identifier/value",
            json!("0x0606060606060606060606060606060606060606"),
            "Consent.provision.actor[0].reference.identifier.value",
        ),
        (
            "/provision/actor/0/reference",
            json!({ "reference": "Organization/1" }),
            "Consent.provision.actor[0].reference.reference",
        ),
        ("/patient/identifier/value", json!("0x00"), "Consent.patient.identifier.value"),
        ("/meta", json!({ "security": [{ "code": "R" }] }), "Consent.meta.security[0]"),
    ];
    for (pointer, value, path) in cases {
        let mut changed = consent();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = changed.pointer_mut(parent).unwrap();
        if let Value::Array(entries) = parent {
            entries[name.parse::<usize>().unwrap()] = value.clone();
        } else {
            parent[name] = value.clone();
        }
        let refusal = read(&changed).unwrap_err();
        assert_eq!(refusal.path, *path, "{pointer}: {refusal}");
    }
    let mut two = consent();
    let actor = two["provision"]["actor"][0].clone();
    two["provision"]["actor"].as_array_mut().unwrap().push(actor);
    assert_eq!(read(&two).unwrap_err().path, "Consent.provision.actor[1]");
    assert_eq!(read(&json!([])).unwrap_err().path, "Consent");
}

#[test]
fn a_grant_that_is_over_is_inactive_and_grants_nothing_again() {
    let over = of_grant(&grant(1, 1, 5, 5, 0, 1), false).unwrap();
    assert_eq!(read(&over).unwrap_err().path, "Consent.status");
    let far = of_grant(&grant(1, 1, 5, 300_000_000_000, 0, 1), true).unwrap_err();
    assert_eq!(far.path, "Consent.provision.period.end");
}
