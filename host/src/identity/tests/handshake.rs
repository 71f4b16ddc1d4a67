//! Who gets in, and who does not and why.

use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{HandshakeKind, ProtocolVersion};

use super::pki::{Ca, DOMAIN, Daemon, Odd, Refused, shake, shake_with, stranger_client, stranger_server};
use crate::identity::{PeerId, Role, peer_id};

fn server_says(outcome: super::pki::Outcome) -> String {
    match outcome {
        Err(Refused { by_server: Some(reason), .. }) => reason,
        other => panic!("the server should have refused: {other:?}"),
    }
}

fn client_says(outcome: super::pki::Outcome) -> String {
    match outcome {
        Err(Refused { by_client: Some(reason), .. }) => reason,
        other => panic!("the client should have refused: {other:?}"),
    }
}

fn refused(daemon: &Daemon, reason: &str) -> u64 {
    daemon.identity.shared.metrics.refused.with_label_values(&[reason]).get()
}

#[test]
fn each_pair_of_roles_meets_only_when_both_expect_it() {
    let ca = Ca::new("ca");
    let daemons = Role::ALL.map(|role| (role, Daemon::new(&ca, role, &format!("{role}-1"))));
    for (client_role, client) in &daemons {
        for (server_role, server) in &daemons {
            for accepted in Role::ALL {
                let alpn: &[&[u8]] = &[b"caregate/1"];
                let config = server.identity.server_config(&[accepted], alpn);
                let outcome = shake(client.identity.client_config(*server_role, None, alpn), config);
                if accepted == *client_role {
                    let (seen_by_client, seen_by_server) = outcome.unwrap();
                    assert_eq!(seen_by_server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
                    assert_eq!(seen_by_server.alpn_protocol(), Some(b"caregate/1".as_slice()));
                    let name = format!("{client_role}-1");
                    let found = peer_id(seen_by_server.peer_certificates().unwrap()).unwrap();
                    assert_eq!(found, PeerId { role: *client_role, name });
                    let found = peer_id(seen_by_client.peer_certificates().unwrap()).unwrap();
                    assert_eq!(found.role, *server_role);
                } else {
                    let reason = server_says(outcome);
                    assert!(reason.contains(&format!("role {client_role}")), "{reason}");
                }
                if accepted != *server_role {
                    let config = server.identity.server_config(&[*client_role], alpn);
                    let reason =
                        client_says(shake(client.identity.client_config(accepted, None, alpn), config));
                    assert!(reason.contains(&format!("role {server_role}")), "{reason}");
                }
            }
        }
    }
    // Each server of each pair refuses the roles that are not the client's, and each client those that are not the server's.
    let (pairs, others) = (Role::ALL.len().pow(2) as u64, Role::ALL.len() as u64 - 1);
    assert_eq!(daemons.iter().map(|(_, d)| refused(d, "role")).sum::<u64>(), 2 * pairs * others);
}

#[test]
fn identities_are_of_either_kind_of_key() {
    let ca = Ca::new("ca");
    let kinds = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384];
    let daemon =
        |kind, role, name| Daemon::with_key(&ca, rcgen::KeyPair::generate_for(kind).unwrap(), role, name);
    for kind in kinds {
        let core = daemon(kind, Role::Core, "core-1");
        for other in kinds {
            let gateway = daemon(other, Role::Gateway, "gateway-1");
            let outcome = shake(
                gateway.identity.client_config(Role::Core, None, &[]),
                core.identity.server_config(&[Role::Gateway], &[]),
            );
            assert!(outcome.is_ok(), "{other:?} {kind:?}: {outcome:?}");
        }
    }
}

#[test]
fn several_roles_may_be_accepted() {
    let ca = Ca::new("ca");
    let core = Daemon::new(&ca, Role::Core, "core-1");
    let config = Arc::new(core.identity.server_config(&[Role::Gateway, Role::Feed], &[]));
    for (role, welcome) in [(Role::Gateway, true), (Role::Feed, true), (Role::Sensor, false)] {
        let client = Daemon::new(&ca, role, "x");
        let outcome = shake_with(&Arc::new(client.identity.client_config(Role::Core, None, &[])), &config);
        assert_eq!(outcome.is_ok(), welcome, "{role}");
    }
}

#[test]
fn an_expected_name_is_checked() {
    let ca = Ca::new("ca");
    let (core, gateway) = (Daemon::new(&ca, Role::Core, "core-1"), Daemon::new(&ca, Role::Gateway, "gw-1"));
    let server = core.identity.server_config(&[Role::Gateway], &[]);
    shake(gateway.identity.client_config(Role::Core, Some("core-1"), &[]), server.clone()).unwrap();
    let reason = client_says(shake(gateway.identity.client_config(Role::Core, Some("core-2"), &[]), server));
    assert!(reason.contains("core-1") && reason.contains("core-2"), "{reason}");
    assert_eq!(refused(&gateway, "name"), 1);
}

#[test]
fn another_authority_is_refused_both_ways() {
    let (ours, theirs) = (Ca::new("ca"), Ca::new("ca"));
    let (core, gateway) =
        (Daemon::new(&ours, Role::Core, "core-1"), Daemon::new(&theirs, Role::Gateway, "gw-1"));
    let reason = client_says(shake(
        gateway.identity.client_config(Role::Core, None, &[]),
        core.identity.server_config(&[Role::Gateway], &[]),
    ));
    assert!(reason.contains("invalid peer certificate"), "{reason}");
    assert_eq!(refused(&gateway, "untrusted"), 1);
    // A client that trusts our CA but carries a certificate of another.
    let stranger = stranger_client(&ours, Some(&theirs.issue(&Odd::not(Role::Gateway, "gw-1"))));
    server_says(shake(stranger, core.identity.server_config(&[Role::Gateway], &[])));
    assert_eq!(refused(&core, "untrusted"), 1);
}

#[test]
fn odd_certificates_are_refused_both_ways() {
    let ca = Ca::new("ca");
    let good = Odd::not(Role::Gateway, "gw-1");
    let uri = good.uris[0].clone();
    let uris = |uris: &[&str]| Odd { uris: uris.iter().map(ToString::to_string).collect(), ..good.clone() };
    let cases = [
        ("expired", "expired", Odd { years: (2000, 2001), ..good.clone() }),
        ("not_yet_valid", "not valid yet", Odd { years: (3999, 4000), ..good.clone() }),
        ("uri_names", "0 URI names", uris(&[])),
        ("uri_names", "2 URI names", uris(&[&uri, &format!("spiffe://{DOMAIN}/core/core-1")])),
        ("uri_names", "2 URI names", uris(&[&uri, &uri])),
        ("domain", "another domain", uris(&["spiffe://other.example/gateway/gw-1"])),
        ("spiffe_id", "spiffe://<domain>/<role>/<name>", uris(&[&format!("https://{DOMAIN}/gateway/gw-1")])),
        ("spiffe_id", "spiffe://<domain>/<role>/<name>", uris(&[&format!("spiffe://{DOMAIN}/admin/gw-1")])),
        (
            "key_usage",
            "extended key usage",
            Odd { usages: vec![ExtendedKeyUsagePurpose::CodeSigning], ..good.clone() },
        ),
    ];
    let core = Daemon::new(&ca, Role::Core, "core-1");
    for (label, text, odd) in cases {
        let before = refused(&core, label);
        let leaf = ca.issue(&odd);
        let config = core.identity.server_config(&[Role::Gateway], &[]);
        let reason = server_says(shake(stranger_client(&ca, Some(&leaf)), config));
        assert!(reason.contains(text), "{label}: {reason}");
        let config = core.identity.client_config(Role::Gateway, None, &[]);
        let reason = client_says(shake(config, stranger_server(&leaf)));
        assert!(reason.contains(text), "{label}: {reason}");
        assert_eq!(refused(&core, label), before + 2, "{label}");
    }
    // The same ends meet with an ordinary certificate.
    let leaf = ca.issue(&good);
    shake(stranger_client(&ca, Some(&leaf)), core.identity.server_config(&[Role::Gateway], &[])).unwrap();
    shake(core.identity.client_config(Role::Gateway, None, &[]), stranger_server(&leaf)).unwrap();
}

#[test]
fn an_end_entity_can_not_issue() {
    let ca = Ca::new("ca");
    let core = Daemon::new(&ca, Role::Core, "core-1");
    // A gateway signs a certificate with the role of a feed, with its own certificate as issuer.
    let gateway = ca.issue(&Odd::not(Role::Gateway, "gw-1"));
    let issuer = rcgen::Issuer::from_ca_cert_der(&gateway.der, gateway.key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let uri = format!("spiffe://{DOMAIN}/feed/feed-1");
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.as_str().try_into().unwrap())];
    let forged = params.signed_by(&key, &issuer).unwrap();
    let chain = vec![forged.der().clone(), gateway.der.clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let client = rustls::ClientConfig::builder_with_provider(crate::identity::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_client_auth_cert(chain, key)
        .unwrap();
    server_says(shake(client, core.identity.server_config(&[Role::Feed], &[])));
}

#[test]
fn between_daemons_a_certificate_and_tls_1_3_are_required() {
    let ca = Ca::new("ca");
    let core = Daemon::new(&ca, Role::Core, "core-1");
    let config = core.identity.server_config(&[Role::Gateway], &[]);
    let reason = server_says(shake(stranger_client(&ca, None), config.clone()));
    assert!(reason.contains("certificate"), "{reason}");
    let old = rustls::ClientConfig::builder_with_provider(crate::identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth();
    server_says(shake(old, config));
}

#[test]
fn a_sensor_may_come_without_a_certificate_or_with_a_good_one() {
    let ca = Ca::new("ca");
    let gateway = Daemon::new(&ca, Role::Gateway, "gw-1");
    let config = gateway.identity.server_config_optional_client(&[Role::Sensor], &[]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let builder = || {
            rustls::ClientConfig::builder_with_provider(crate::identity::provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(ca.roots())
        };
        let (_, server) = shake(builder().with_no_client_auth(), config.clone()).unwrap();
        assert_eq!((server.protocol_version(), server.peer_certificates()), (Some(version.version), None));
        for (role, welcome) in [(Role::Sensor, true), (Role::Gateway, false)] {
            let leaf = ca.issue(&Odd::not(role, "monitor-1"));
            let key = rustls::pki_types::PrivatePkcs8KeyDer::from(leaf.key.serialize_der()).into();
            let client = builder().with_client_auth_cert(vec![leaf.der.clone()], key).unwrap();
            match shake(client, config.clone()) {
                Ok((_, server)) => {
                    assert!(welcome);
                    assert_eq!(peer_id(server.peer_certificates().unwrap()).unwrap().name, "monitor-1");
                }
                Err(refusal) => assert!(!welcome, "{refusal:?}"),
            }
        }
    }
}

#[test]
fn a_browser_is_asked_for_no_certificate() {
    let ca = Ca::new("ca");
    let feed = Daemon::new(&ca, Role::Feed, "feed-1");
    let leaf = ca.issue(&Odd::not(Role::Sensor, "x"));
    let config = feed.identity.server_config_no_client(&[b"http/1.1"]);
    let (_, server) = shake(stranger_client(&ca, Some(&leaf)), config).unwrap();
    assert_eq!(server.peer_certificates(), None);
}

/// Resumption would let a client in whose certificate has expired, or whose CA is gone.
#[test]
fn sessions_are_not_resumed() {
    let ca = Ca::new("ca");
    let core = Daemon::new(&ca, Role::Core, "core-1");
    let leaf = ca.issue(&Odd::not(Role::Gateway, "gw-1"));
    let strict = core.identity.server_config(&[Role::Gateway], &[]);
    let optional = core.identity.server_config_optional_client(&[Role::Gateway], &[]);
    for server in [strict, optional] {
        let (client, server) = (Arc::new(stranger_client(&ca, Some(&leaf))), Arc::new(server));
        for _ in 0..3 {
            let (client, _) = shake_with(&client, &server).unwrap();
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

#[test]
fn the_configurations_fit_quic() {
    use rustls::quic;
    let ca = Ca::new("ca");
    let core = Daemon::new(&ca, Role::Core, "core-1");
    let server = Arc::new(core.identity.server_config(&[Role::Gateway], &[b"caregate/1"]));
    assert_eq!(server.max_early_data_size, 0);
    quic::ServerConnection::new(server, quic::Version::V1, Vec::new()).unwrap();
    let client = Arc::new(core.identity.client_config(Role::Gateway, None, &[b"caregate/1"]));
    assert!(!client.enable_early_data);
    let name = rustls::pki_types::ServerName::try_from("core").unwrap();
    quic::ClientConnection::new(client, quic::Version::V1, name, Vec::new()).unwrap();
}
