//! The peer: mosquitto at home, a bridge over TLS, mosquitto at the other end, as a user would configure them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;

use crate::process::{Process, free_tcp, until};
use crate::site::target;

/// How much it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Persistence on, saved when it ends and every half hour: Debian's own setting. The queue has no limit, or an outage loses
    /// messages at the thousandth.
    Usual,
    /// The database is written after each change: the closest that mosquitto offers. It is never synced.
    Closest,
}

pub(crate) struct Bridge {
    _dir: TempDir,
    pub(crate) home: Process,
    pub(crate) far: Process,
    pub(crate) mqtt: SocketAddr,
    pub(crate) subscribe: SocketAddr,
}

/// Debian has mosquitto in `/usr/sbin`, which is not on everybody's path.
fn mosquitto() -> anyhow::Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').chain(["/usr/sbin"]).map(|dir| Path::new(dir).join("mosquitto"));
    places
        .find(|path| path.is_file())
        .context("mosquitto is not there; install with: apt-get install mosquitto")
}

impl Bridge {
    pub(crate) fn start(durability: Durability) -> anyhow::Result<Self> {
        let dir = TempDir::new_in(target()?)?;
        let path = |name: &str| dir.path().join(name);
        certify(dir.path())?;
        let (mqtt, subscribe, tls) = (free_tcp()?, free_tcp()?, free_tcp()?);
        let saves = match durability {
            Durability::Usual => "",
            Durability::Closest => "autosave_on_changes true\nautosave_interval 1\n",
        };
        let common = |name: &str| -> anyhow::Result<String> {
            fs::create_dir(path(name))?;
            Ok(format!(
                "per_listener_settings false\nallow_anonymous true\nmax_queued_messages 0\npersistence true\n\
                 persistence_location {}/\n{saves}log_type error\nlog_type warning\nlog_dest stdout\nuser root\n",
                path(name).display()
            ))
        };
        let home = format!(
            "{}listener {} 127.0.0.1\nconnection far\naddress {tls}\ntopic # out 1\ncleansession false\n\
             notifications false\nrestart_timeout 1\nbridge_cafile {}\nbridge_certfile {}\nbridge_keyfile {}\n",
            common("home")?,
            mqtt.port(),
            path("ca.pem").display(),
            path("home.pem").display(),
            path("home.key").display(),
        );
        let far = format!(
            "{}listener {} 127.0.0.1\nlistener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
            common("far")?,
            subscribe.port(),
            tls.port(),
            path("ca.pem").display(),
            path("far.pem").display(),
            path("far.key").display(),
        );
        let start = |name: &str, text: String| {
            let file = path(&format!("{name}.conf"));
            fs::write(&file, text)?;
            let arguments = vec!["-c".into(), file.display().to_string()];
            Process::start(&mosquitto()?, arguments, path(&format!("{name}.log")))
        };
        let far = start("far", far)?;
        listens(subscribe, &far)?;
        let home = start("home", home)?;
        listens(mqtt, &home)?;
        Ok(Self { home, far, mqtt, subscribe, _dir: dir })
    }
}

pub(crate) fn listens(address: SocketAddr, process: &Process) -> anyhow::Result<()> {
    let open = || std::net::TcpStream::connect(address).is_ok();
    if until("mosquitto listens", open).is_err() {
        bail!("mosquitto does not listen:\n{}", process.tail());
    }
    Ok(())
}

/// An authority and a certificate for each broker, for 127.0.0.1.
fn certify(dir: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate()?;
    fs::write(dir.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    for name in ["home", "far"] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate()?;
        fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer)?.pem())?;
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}
