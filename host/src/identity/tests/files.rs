//! What our own files must be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::pki::{Ca, Odd, write};
use crate::identity::{Identity, IdentityFiles, Role};
use crate::key_file::KeyFileError;

fn refusal(files: &IdentityFiles) -> String {
    Identity::load(files).unwrap_err().to_string()
}

#[test]
fn good_files_load() {
    let (ca, directory) = (Ca::new("ca"), tempfile::tempdir().unwrap());
    let files = write(directory.path(), &ca.pem, &ca.issue(&Odd::not(Role::Gateway, "gw-1")));
    let identity = Identity::load(&files).unwrap();
    assert_eq!(identity.id().to_string(), "spiffe://home.example/gateway/gw-1");
    // 1 January 4000.
    assert_eq!(identity.not_after_s(), 64_060_588_800);
    let registry = prometheus::Registry::new();
    identity.register(&registry).unwrap();
    assert!(registry.gather().iter().any(|family| family.name() == "caregate_identity_not_after_seconds"));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (ca, directory) = (Ca::new("ca"), tempfile::tempdir().unwrap());
    let files = write(directory.path(), &ca.pem, &ca.issue(&Odd::not(Role::Gateway, "gw-1")));
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Identity::load(&files).unwrap_err();
    let crate::identity::IdentityError::KeyFile(KeyFileError::Mode { path, mode }) = error else {
        panic!("{error}");
    };
    assert_eq!((path, mode), (files.key, 0o644));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (ca, directory) = (Ca::new("ca"), tempfile::tempdir().unwrap());
    let leaf = ca.issue(&Odd::not(Role::Gateway, "gw-1"));
    let files = write(directory.path(), &ca.pem, &leaf);
    fs::write(&files.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = refusal(&files);
    assert!(error.contains("key.pem: does not belong to the certificate in"), "{error}");
}

#[test]
fn a_certificate_that_peers_would_refuse_is_refused_here() {
    let (ca, directory) = (Ca::new("ca"), tempfile::tempdir().unwrap());
    let good = Odd::not(Role::Gateway, "gw-1");
    let cases = [
        ("expired", Odd { years: (2000, 2001), ..good.clone() }),
        ("not valid yet", Odd { years: (3999, 4000), ..good.clone() }),
        ("0 URI names", Odd { uris: Vec::new(), ..good.clone() }),
        (
            "extended key usage",
            Odd { usages: vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth], ..good.clone() },
        ),
    ];
    for (text, odd) in cases {
        let error = refusal(&write(directory.path(), &ca.pem, &ca.issue(&odd)));
        assert!(error.contains("cert.pem: ") && error.contains(text), "{text}: {error}");
    }
    let other = Ca::new("other");
    let error = refusal(&write(directory.path(), &other.pem, &ca.issue(&good)));
    assert!(error.contains("cert.pem: ") && error.contains("UnknownIssuer"), "{error}");
}

#[test]
fn files_that_hold_something_else_are_named() {
    let (ca, directory) = (Ca::new("ca"), tempfile::tempdir().unwrap());
    let files = write(directory.path(), &ca.pem, &ca.issue(&Odd::not(Role::Gateway, "gw-1")));
    for path in [&files.ca, &files.certificate, &files.key] {
        let good = fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for junk in [
            b"".as_slice(),
            b"junk",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &[0xff; 9],
        ] {
            fs::write(path, junk).unwrap();
            let error = refusal(&files);
            assert!(error.contains(name), "{name}: {error}");
        }
        fs::remove_file(path).unwrap();
        assert!(refusal(&files).contains(name));
        fs::write(path, good).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    Identity::load(&files).unwrap();
}

#[test]
fn a_broken_key_does_not_show_in_the_error() {
    let (ca, directory) = (Ca::new("ca"), tempfile::tempdir().unwrap());
    let files = write(directory.path(), &ca.pem, &ca.issue(&Odd::not(Role::Gateway, "gw-1")));
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";
    fs::write(&files.key, format!("-----BEGIN PRIVATE KEY-----\n{secret}*\n-----END PRIVATE KEY-----\n"))
        .unwrap();
    let error = Identity::load(&files).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("ecret"), "{error}");
}
