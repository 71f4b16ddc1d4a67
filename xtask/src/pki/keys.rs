//! Keys and passwords that are no certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use caregate_host::key_file::{self, Existing};
use caregate_protocol::id::DeviceId;
use caregate_protocol::segment::signer_id;
use caregate_protocol::wrap;
use ed25519_dalek::SigningKey;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use zeroize::Zeroizing;

use super::private_directory;

/// A sensor's secret: 128 bits, so that a plain hash is enough on the gateway's side (no dictionary reaches it).
const SECRET_BYTES: usize = 16;
/// A salt makes equal secrets differ; 128 bits never meet by chance.
const SALT_BYTES: usize = 16;

/// The key with which a gateway signs segments and wraps (Ed25519).
#[derive(Debug, Serialize)]
pub(crate) struct DeviceKey {
    /// Its 32-byte seed in hexadecimal.
    pub(crate) key: PathBuf,
    /// The public half's file: `key` with `.pub`.
    pub(crate) public_file: PathBuf,
    /// The public half in hexadecimal, for the configuration of core and feed.
    pub(crate) public: String,
    /// The number by which segments name it.
    pub(crate) signer: String,
}

/// A recipient's key for wraps (X25519, RFC 9180).
#[derive(Debug, Serialize)]
pub(crate) struct HpkeKey {
    /// The private key in hexadecimal.
    pub(crate) key: PathBuf,
    /// The public half's file: `key` with `.pub`.
    pub(crate) public_file: PathBuf,
    /// The public half in hexadecimal, for the gateway's policy.
    pub(crate) public: String,
}

/// A sensor's MQTT login: the secret for the sensor, the salted hash for the gateway.
#[derive(Debug, Serialize)]
pub(crate) struct SensorPassword {
    pub(crate) device: DeviceId,
    pub(crate) username: String,
    /// In hexadecimal.
    pub(crate) salt: String,
    /// SHA-256 over salt ‖ secret, in hexadecimal.
    pub(crate) sha256: String,
    /// The file with the secret, as it is sent in MQTT's password field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_file: Option<PathBuf>,
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_source| anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

/// Writes a private key and its public half beside it; both refused before either is written.
fn write_pair(key: &Path, private: &[u8], public: &[u8], existing: Existing) -> Result<PathBuf> {
    let mut public_file = key.as_os_str().to_owned();
    public_file.push(".pub");
    let public_file = PathBuf::from(public_file);
    make_parent(key)?;
    if existing == Existing::Keep
        && let Some(there) = [key, &public_file].into_iter().find(|path| path.exists())
    {
        bail!("{}: exists already; --force replaces it", there.display());
    }
    key_file::write_hex(key, private, existing)?;
    key_file::write_public(&public_file, format!("{}\n", hex::encode(public)).as_bytes(), existing)?;
    Ok(public_file)
}

fn make_parent(file: &Path) -> Result<()> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => private_directory(parent),
        Some(_) | None => Ok(()),
    }
}

impl DeviceKey {
    /// Makes a key and writes its seed to `out`, its public half to `out` + `.pub`.
    pub(crate) fn generate(out: &Path, existing: Existing) -> Result<Self> {
        let key = SigningKey::from_bytes(&*random()?);
        let public = key.verifying_key();
        let public_file = write_pair(out, key.as_bytes(), public.as_bytes(), existing)?;
        let signer = signer_id(&public).to_string();
        Ok(Self { key: out.to_owned(), public_file, public: hex::encode(public.as_bytes()), signer })
    }
}

impl HpkeKey {
    /// Makes a key pair and writes the private key to `out`, its public half to `out` + `.pub`.
    pub(crate) fn generate(out: &Path, existing: Existing) -> Result<Self> {
        let (private, public) = wrap::generate_keypair();
        let public_file = write_pair(out, private.as_bytes(), &public.0, existing)?;
        Ok(Self { key: out.to_owned(), public_file, public: hex::encode(public.0) })
    }
}

impl SensorPassword {
    /// Makes a secret and returns it (32 hexadecimal digits) with what the gateway keeps of it.
    pub(crate) fn generate(device: &str, username: &str) -> Result<(Self, Zeroizing<String>)> {
        let device = DeviceId::new(device)?;
        let secret = Zeroizing::new(hex::encode(*random::<SECRET_BYTES>()?));
        let salt = random::<SALT_BYTES>()?;
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(salt.as_slice());
        hash.update(secret.as_bytes());
        let sha256 = hex::encode(hash.finish());
        let salt = hex::encode(*salt);
        Ok((Self { device, username: username.to_owned(), salt, sha256, secret_file: None }, secret))
    }

    /// As [`Self::generate`], with the secret in a file of mode 0600.
    pub(crate) fn generate_to(device: &str, username: &str, out: &Path, existing: Existing) -> Result<Self> {
        let (mut password, secret) = Self::generate(device, username)?;
        make_parent(out)?;
        let mut line = secret;
        line.push('\n');
        key_file::write(out, line.as_bytes(), existing).context("--force replaces a file")?;
        password.secret_file = Some(out.to_owned());
        Ok(password)
    }

    /// The lines for the gateway's configuration: one `[[mqtt.credential]]`.
    pub(crate) fn to_toml(&self) -> Result<String> {
        #[derive(Serialize)]
        struct File<'a> {
            mqtt: Mqtt<'a>,
        }
        #[derive(Serialize)]
        struct Mqtt<'a> {
            credential: [Credential<'a>; 1],
        }
        #[derive(Serialize)]
        struct Credential<'a> {
            device: &'a DeviceId,
            username: &'a str,
            salt: &'a str,
            sha256: &'a str,
        }
        let Self { device, username, salt, sha256, secret_file: _ } = self;
        let credential = [Credential { device, username, salt, sha256 }];
        Ok(toml::to_string(&File { mqtt: Mqtt { credential } })?)
    }
}
