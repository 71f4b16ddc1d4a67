//! Kernels from Debian's archive, by apt: with a state of its own, so that the machine's package lists and architectures stay what
//! they are. What is fetched is signed by Debian's keys, which apt checks.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Name, entry};
use crate::{build, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its release, as in `uname -r`.
    pub(super) version: String,
    /// What boots.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

/// The kernel below `folder`, fetched where it isn't there yet.
///
/// # Errors
/// Where the archive doesn't have it.
pub(super) fn fetch(name: Name, folder: &Path) -> anyhow::Result<Kernel> {
    let root = folder.join("root");
    if !root.exists() {
        let fresh = folder.join("root.part");
        for old in [&fresh, &folder.join("apt")] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| old.display().to_string())?;
            }
        }
        fs::create_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        let package = download(name, &folder.join("apt"))?;
        build::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&fresh))?;
        // Only a whole one gets the name.
        fs::rename(&fresh, &root).with_context(|| root.display().to_string())?;
        fs::remove_dir_all(folder.join("apt"))?;
    }
    let image = entry(&root.join("boot"), "vmlinuz-")?;
    let version = image.file_name().and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"));
    let version = version.context("a kernel without a release")?.to_owned();
    // Debian 13 has `/lib` in `/usr`.
    let places =
        ["lib/modules", "usr/lib/modules"].map(|place| root.join(place).join(&version).join("kernel"));
    let modules = places.into_iter().find(|place| place.exists());
    let modules = modules.with_context(|| format!("{}: no modules", root.display()))?;
    Ok(Kernel { version, image, modules })
}

/// apt, with everything of its own below a folder.
struct Apt {
    folder: PathBuf,
    options: Vec<OsString>,
}

impl Apt {
    fn new(folder: PathBuf, suite: &str, arch: &str) -> anyhow::Result<Self> {
        for inner in ["state/lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(folder.join(inner)).with_context(|| folder.display().to_string())?;
        }
        fs::write(folder.join("status"), "")?;
        let source = format!("deb [arch={arch} signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(folder.join("sources.list"), source)?;
        let mut options = Vec::new();
        let places = [
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "parts"),
            ("Dir::Etc::preferencesparts", "parts"),
        ];
        for (key, place) in places {
            options.push("-o".into());
            options.push(format!("{key}={}", folder.join(place).display()).into());
        }
        for option in [
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            "Acquire::Languages=none".into(),
            // The user `_apt` can't enter every checkout.
            "APT::Sandbox::User=root".into(),
        ] {
            options.extend(["-o".into(), option.into()]);
        }
        Ok(Self { folder, options })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments).current_dir(&self.folder);
        command
    }
}

/// The archive that this machine's own apt uses.
fn mirror() -> anyhow::Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]);
    let lists = output(&mut command)?;
    let found = lists.lines().find_map(|line| line.strip_prefix("Debian|Debian|"));
    found
        .map(str::to_owned)
        .context("this machine's apt knows no archive of Debian's (or `apt-get update` never ran)")
}

/// The package of the newest kernel of a release.
fn download(name: Name, folder: &Path) -> anyhow::Result<PathBuf> {
    let (suite, newest) = name.package();
    let arch = name.arch().name();
    let apt = Apt::new(folder.to_owned(), suite, arch)?;
    say(&format!("{}: fetching {newest}:{arch} of {suite}", name.as_str()));
    build::run(&mut apt.command("apt-get", &["update", "-q"]))?;
    let shown = output(&mut apt.command("apt-cache", &["show", "--no-all-versions", newest]))?;
    let (package, version) =
        depended(&shown).with_context(|| format!("{newest} of {suite} names no kernel:\n{shown}"))?;
    build::run(&mut apt.command("apt-get", &["download", "-q", &format!("{package}={version}")]))?;
    entry(folder, &format!("{package}_"))
}

/// `Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)`
fn depended(shown: &str) -> Option<(&str, &str)> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let first = depends.split(',').map(str::trim).find(|one| one.starts_with("linux-image-"))?;
    let (package, version) = first.split_once(" (= ")?;
    Some((package, version.strip_suffix(')')?))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    ensure!(!text.is_empty(), "{command:?} said nothing");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_that_stands_for_the_newest_names_it() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 6.1.176-1\n\
            Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\nSection: kernel\n";
        assert_eq!(depended(shown), Some(("linux-image-6.1.0-50-cloud-amd64", "6.1.176-1")));
        assert_eq!(depended("Depends: libc6 (= 2.36-9)\n"), None);
        assert_eq!(depended("Package: linux-image-amd64\n"), None);
    }
}
