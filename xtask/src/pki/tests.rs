//! What is written can be used by the daemons, by nobody else, and is not lost by a second run.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use caregate_host::identity::{Identity, Role, peer_id};
use caregate_host::key_file::{self, Existing};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::*;

const DAY_S: i64 = 24 * 60 * 60;

fn now_s() -> i64 {
    caregate_host::clock::now_ms() / 1000
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn request(role: Role, name: &str) -> Request {
    Request { role, name: name.to_owned(), dns: Vec::new(), ip: Vec::new(), days: 90 }
}

fn authority(directory: &Path) -> Authority {
    Authority::init(directory, "home.example", now_s(), Existing::Keep).unwrap()
}

#[test]
fn modes_of_everything_written() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, out) = (directory.path().join("pki"), directory.path().join("pki/gateway-gw-1"));
    let issued =
        authority(&ca).issue(&request(Role::Gateway, "gw-1"), &out, now_s(), Existing::Keep).unwrap();
    let device = DeviceKey::generate(&out.join("device.key"), Existing::Keep).unwrap();
    let hpke = HpkeKey::generate(&out.join("hpke.key"), Existing::Keep).unwrap();
    let password =
        SensorPassword::generate_to("m-1", "m-1", &out.join("m-1.secret"), Existing::Keep).unwrap();
    for private in [&ca.join("ca.key"), &issued.key, &device.key, &hpke.key, &password.secret_file.unwrap()] {
        assert_eq!(mode(private), 0o600, "{}", private.display());
    }
    for public in
        [&ca.join("ca.pem"), &issued.certificate, &issued.ca, &device.public_file, &hpke.public_file]
    {
        assert_eq!(mode(public) & 0o600, 0o600, "{}", public.display());
        assert!(!fs::read_to_string(public).unwrap().contains("PRIVATE"), "{}", public.display());
    }
    assert_eq!((mode(&ca), mode(&out)), (0o700, 0o700));
}

#[test]
fn a_directory_that_others_write_to_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Authority::init(directory.path(), "home.example", now_s(), Existing::Keep).err().unwrap();
    assert!(error.to_string().contains("0777"), "{error}");
    assert!(!directory.path().join("ca.key").exists());
}

#[test]
fn daemons_meet_with_what_was_issued() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let load = |role, name: &str| {
        let out = directory.path().join(name);
        let issued = authority.issue(&request(role, name), &out, now_s(), Existing::Keep).unwrap();
        Identity::load(&issued.files()).unwrap()
    };
    let (gateway, core) = (load(Role::Gateway, "gw-1"), load(Role::Core, "core-1"));
    assert_eq!(gateway.id().to_string(), "spiffe://home.example/gateway/gw-1");
    let server = Arc::new(core.server_config(&[Role::Gateway], &[]));
    let client = Arc::new(gateway.client_config(Role::Core, Some("core-1"), &[]));
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || {
        let mut connection = ServerConnection::new(server).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut far).unwrap();
        }
        peer_id(connection.peer_certificates().unwrap()).unwrap()
    });
    let mut connection = ClientConnection::new(client, ServerName::try_from("core").unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut near).unwrap();
    }
    assert_eq!(serving.join().unwrap().to_string(), "gateway/gw-1");
    assert_eq!(peer_id(connection.peer_certificates().unwrap()).unwrap().to_string(), "core/core-1");
}

#[test]
fn a_client_that_checks_names_accepts_dns_and_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut request = request(Role::Gateway, "gw-1");
    request.dns = vec!["gateway.home.example".to_owned()];
    request.ip = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let out = directory.path().join("gw");
    let issued = authority(directory.path()).issue(&request, &out, now_s(), Existing::Keep).unwrap();
    let shown = show::show(&issued.certificate, now_s()).unwrap();
    assert_eq!(
        (shown[0].dns.as_slice(), shown[0].ip.as_slice()),
        (request.dns.as_slice(), request.ip.as_slice())
    );
    for wrong in ["", "a..b", "-a", "a_b", "ä.example", "*.example"] {
        request.dns = vec![wrong.to_owned()];
        let error =
            authority_of(directory.path()).issue(&request, &out, now_s(), Existing::Replace).unwrap_err();
        assert!(error.to_string().contains("no DNS name"), "{wrong}: {error}");
    }
}

fn authority_of(directory: &Path) -> Authority {
    Authority::open(directory).unwrap()
}

#[test]
fn nothing_is_replaced_without_force() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(directory.path());
    let out = directory.path().join("gw-1");
    ca.issue(&request(Role::Gateway, "gw-1"), &out, now_s(), Existing::Keep).unwrap();
    let device = directory.path().join("device.key");
    DeviceKey::generate(&device, Existing::Keep).unwrap();
    let secret = directory.path().join("secret");
    SensorPassword::generate_to("m", "m", &secret, Existing::Keep).unwrap();
    let files = [
        directory.path().join("ca.key"),
        out.join("key.pem"),
        out.join("certificate.pem"),
        device.clone(),
        secret.clone(),
    ];
    let contents = || files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
    let before = contents();
    assert!(Authority::init(directory.path(), "home.example", now_s(), Existing::Keep).is_err());
    ca.issue(&request(Role::Gateway, "gw-1"), &out, now_s(), Existing::Keep).unwrap_err();
    DeviceKey::generate(&device, Existing::Keep).unwrap_err();
    SensorPassword::generate_to("m", "m", &secret, Existing::Keep).unwrap_err();
    assert_eq!(contents(), before);
    // With it, each is new, and the renewed certificate still fits its key and its CA.
    let issued = ca.issue(&request(Role::Gateway, "gw-1"), &out, now_s(), Existing::Replace).unwrap();
    Identity::load(&issued.files()).unwrap();
    DeviceKey::generate(&device, Existing::Replace).unwrap();
    SensorPassword::generate_to("m", "m", &secret, Existing::Replace).unwrap();
    Authority::init(directory.path(), "home.example", now_s(), Existing::Replace).unwrap();
    assert!(contents().iter().zip(&before).all(|(after, before)| after != before));
}

#[test]
fn a_rollover_file_with_two_authorities_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory.path().join("old"));
    let out = directory.path().join("gw-1");
    let issued = ca.issue(&request(Role::Gateway, "gw-1"), &out, now_s(), Existing::Keep).unwrap();
    let next = authority(&directory.path().join("next"));
    let both = [fs::read(&issued.ca).unwrap(), fs::read(&next.certificate).unwrap()].concat();
    fs::write(&issued.ca, &both).unwrap();
    for ca in [&ca, &next] {
        let issued = ca.issue(&request(Role::Gateway, "gw-1"), &out, now_s(), Existing::Replace).unwrap();
        Identity::load(&issued.files()).unwrap();
        assert_eq!(fs::read(&issued.ca).unwrap(), both);
    }
}

#[test]
fn dates_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(directory.path());
    let out = directory.path().join("gw-1");
    let mut request = request(Role::Gateway, "gw-1");
    // Issued 91 days ago for 90 days: the daemon refuses it.
    let issued = ca.issue(&request, &out, now_s() - 91 * DAY_S, Existing::Keep).unwrap();
    let error = Identity::load(&issued.files()).unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
    assert_eq!(show::show(&issued.certificate, now_s()).unwrap()[0].days_left, -1);
    // One that would outlive its authority is not issued.
    request.days = 3651;
    let error = ca.issue(&request, &out, now_s(), Existing::Replace).unwrap_err().to_string();
    assert!(error.contains("the CA ends"), "{error}");
}

#[test]
fn names_and_domains_are_checked_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    for domain in ["", "Home", "a/b", "a b", "ä"] {
        assert!(Authority::init(&path, domain, now_s(), Existing::Keep).is_err(), "{domain}");
    }
    assert!(!path.exists());
    let ca = authority(&path);
    for name in ["", "a/b", "..", "a:b", "a b"] {
        let out = directory.path().join("out");
        assert!(ca.issue(&request(Role::Core, name), &out, now_s(), Existing::Keep).is_err(), "{name}");
        assert!(!out.exists());
    }
    assert!(SensorPassword::generate("a/b", "u").is_err());
}

#[test]
fn an_authority_whose_parts_do_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    authority(&a);
    authority(&b);
    fs::copy(a.join("ca.pem"), b.join("ca.pem")).unwrap();
    let error = format!("{:#}", Authority::open(&b).err().unwrap());
    assert!(error.contains("does not belong to the key"), "{error}");
    fs::set_permissions(a.join("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = format!("{:#}", Authority::open(&a).err().unwrap());
    assert!(error.contains("0640"), "{error}");
    let error = format!("{:#}", Authority::open(directory.path()).err().unwrap());
    assert!(error.contains("pki init"), "{error}");
}

#[test]
fn device_and_hpke_keys_fit_their_public_halves() {
    let directory = tempfile::tempdir().unwrap();
    let device = DeviceKey::generate(&directory.path().join("new/device.key"), Existing::Keep).unwrap();
    let seed = key_file::read_hex::<32>(&device.key).unwrap();
    let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    assert_eq!(device.public, hex::encode(public.as_bytes()));
    assert_eq!(fs::read_to_string(&device.public_file).unwrap().trim(), device.public);
    let hpke = HpkeKey::generate(&directory.path().join("hpke.key"), Existing::Keep).unwrap();
    let private = key_file::read_hex::<32>(&hpke.key).unwrap();
    let public = caregate_protocol::wrap::HpkePrivateKey::from_bytes(*private).public_key().unwrap();
    assert_eq!(hpke.public, hex::encode(public.0));
}

#[test]
fn the_password_fits_its_hash_and_each_is_new() {
    let (first, secret) = SensorPassword::generate("monitor-1", "ward").unwrap();
    assert_eq!(secret.len(), 32);
    let salted = [hex::decode(&first.salt).unwrap(), secret.as_bytes().to_vec()].concat();
    assert_eq!(first.sha256, hex::encode(ring::digest::digest(&ring::digest::SHA256, &salted)));
    let (second, other) = SensorPassword::generate("monitor-1", "ward").unwrap();
    assert!(secret != other && first.salt != second.salt);
    assert!(first.to_toml().unwrap().starts_with("[[mqtt.credential]]\n"));
    let lines: toml::Table = first.to_toml().unwrap().parse().unwrap();
    let credential = &lines["mqtt"]["credential"][0];
    assert_eq!(credential["device"].as_str(), Some("monitor-1"));
    assert_eq!(credential["username"].as_str(), Some("ward"));
    assert!(!first.to_toml().unwrap().contains(secret.as_str()));
}

#[test]
fn show_walks_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(directory.path());
    for (role, name) in [(Role::Gateway, "gw-1"), (Role::Core, "core-1")] {
        ca.issue(&request(role, name), &directory.path().join(name), now_s(), Existing::Keep).unwrap();
    }
    let shown = show::show(directory.path(), now_s()).unwrap();
    let ids: Vec<_> = shown.iter().filter(|shown| !shown.ca).map(|shown| shown.id.clone().unwrap()).collect();
    assert_eq!(ids, ["spiffe://home.example/core/core-1", "spiffe://home.example/gateway/gw-1"]);
    assert!(
        shown.iter().filter(|shown| shown.ca).all(|ca| ca.id.as_deref() == Some("spiffe://home.example"))
    );
    assert_eq!(shown.iter().filter(|shown| shown.ca).count(), 3);
    let empty = tempfile::tempdir().unwrap();
    assert!(show::show(empty.path(), now_s()).is_err());
}
