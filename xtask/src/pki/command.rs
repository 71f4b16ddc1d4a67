//! `cargo xtask pki …`: arguments in, one line per result out (or one JSON object with `--json`).

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use caregate_host::clock;
use caregate_host::identity::Role;
use caregate_host::key_file::Existing;
use clap::{Args as ClapArgs, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::show::{self, Shown};
use super::{Authority, DeviceKey, HpkeKey, Issued, Request, SensorPassword};

/// Arguments of `pki`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
}

/// Whether files may be replaced.
#[derive(ClapArgs)]
struct Force {
    /// Replace files that are there already.
    #[arg(long)]
    force: bool,
}

impl Force {
    fn existing(&self) -> Existing {
        match self.force {
            true => Existing::Replace,
            false => Existing::Keep,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Make the deployment's certificate authority: DIR/ca.pem and DIR/ca.key.
    ///
    /// The directory is made at mode 0700, the key at 0600. Keep ca.key off every gateway and server: only this command needs it.
    Init {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
        /// The deployment's name in every certificate's SPIFFE id: a-z 0-9 . _ -
        #[arg(long)]
        domain: String,
        #[command(flatten)]
        force: Force,
    },
    /// Issue a certificate: certificate.pem, key.pem and ca.pem.
    ///
    /// To renew one, issue it again with --force; a running daemon takes it over without a restart.
    Issue {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
        /// gateway, core, feed, controller, sensor or operator.
        #[arg(long, value_parser = role)]
        role: Role,
        /// Which one of that role: 1 to 64 of A-Z a-z 0-9 . _ - (for a sensor: its device id).
        #[arg(long)]
        name: String,
        /// A DNS name for clients that check names (browsers, sensors); may be repeated.
        #[arg(long)]
        dns: Vec<String>,
        /// An address for clients that check names; may be repeated.
        #[arg(long)]
        ip: Vec<IpAddr>,
        /// Days until it expires.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Where to write [default: DIR/ROLE-NAME].
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        force: Force,
    },
    /// Show certificates: whose, until when, fingerprint. Exits 1 when there is none.
    Show {
        /// A PEM file, or a directory.
        path: PathBuf,
    },
    /// Make a gateway's signing key (Ed25519): OUT, and OUT.pub for core and feed.
    DeviceKey {
        /// File for the private key.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        force: Force,
    },
    /// Make a hospital domain's HPKE key (X25519): OUT, and OUT.pub for the policy.
    HpkeKey {
        /// File for the private key.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        force: Force,
    },
    /// Make a sensor's MQTT password; prints the credential for the gateway's configuration.
    SensorPassword {
        /// The device's id: 1 to 64 of A-Z a-z 0-9 . _ : -
        #[arg(long)]
        device: String,
        /// MQTT user name [default: the device's id].
        #[arg(long)]
        username: Option<String>,
        /// File for the secret, to be put into the sensor.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        force: Force,
    },
}

fn role(text: &str) -> Result<Role, String> {
    Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
        let roles = Role::ALL.map(Role::as_str).join(", ");
        format!("must be one of {roles}")
    })
}

/// Runs one of the commands.
pub(crate) fn run(args: Args) -> Result<()> {
    let now_s = clock::now_ms().div_euclid(1000);
    let json = args.json;
    match args.command {
        Command::Init { dir, domain, force } => {
            let authority = Authority::init(&dir, &domain, now_s, force.existing())?;
            let value = json!({ "domain": authority.domain, "certificate": authority.certificate });
            print(json, &value, &format!("CA of {domain}: {}", authority.certificate.display()))
        }
        Command::Issue { dir, role, name, dns, ip, days, out, force } => {
            let out = out.unwrap_or_else(|| dir.join(format!("{role}-{name}")));
            let request = Request { role, name, dns, ip, days };
            issue(json, &dir, &request, &out, now_s, force.existing())
        }
        Command::Show { path } => {
            let shown = show::show(&path, now_s)?;
            print(json, &shown, &shown.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        Command::DeviceKey { out, force } => {
            let key = DeviceKey::generate(&out, force.existing())?;
            print(json, &key, &format!("{}\npublic {}\nsigner {}", key.key.display(), key.public, key.signer))
        }
        Command::HpkeKey { out, force } => {
            let key = HpkeKey::generate(&out, force.existing())?;
            print(json, &key, &format!("{}\npublic {}", key.key.display(), key.public))
        }
        Command::SensorPassword { device, username, out, force } => {
            let username = username.as_deref().unwrap_or(&device);
            let password = SensorPassword::generate_to(&device, username, &out, force.existing())?;
            print(json, &password, password.to_toml()?.trim_end())
        }
    }
}

fn issue(
    json: bool,
    dir: &Path,
    request: &Request,
    out: &Path,
    now_s: i64,
    existing: Existing,
) -> Result<()> {
    let issued: Issued = Authority::open(dir)?.issue(request, out, now_s, existing)?;
    print(json, &issued, &format!("{}: {}", issued.id, issued.certificate.display()))
}

fn line(shown: &Shown) -> String {
    let id = shown.id.as_deref().unwrap_or("no SPIFFE id");
    let kind = if shown.ca { " (CA)" } else { "" };
    let names: Vec<_> = shown.dns.iter().cloned().chain(shown.ip.iter().map(ToString::to_string)).collect();
    let names = if names.is_empty() { String::new() } else { format!("\n  names {}", names.join(", ")) };
    format!(
        "{id}{kind}\n  file {}\n  until {} ({} days){names}\n  sha256 {}",
        shown.file.display(),
        shown.not_after,
        shown.days_left,
        shown.sha256
    )
}

fn print(json: bool, value: &impl Serialize, text: &str) -> Result<()> {
    let line = if json { serde_json::to_string(value)? } else { text.to_owned() };
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}
