//! The guest's file system: a cpio archive of the `newc` format (`buffer-format.rst` of the kernel's documentation) with one program,
//! the modules that it needs, and the places where it mounts.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::archive::Kernel;

const FOLDERS: [&str; 5] = ["dev", "proc", "sys", "tmp", "modules"];
/// Modules of modules: two levels are what there is.
const DEPTH_MAX: usize = 8;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Of `/dev/console`: standard output of process 1.
const CONSOLE: (u32, u32) = (5, 1);

/// The archive: the guest's program with what it needs beside it, by their own paths, and modules. Those that a kernel has within itself
/// are in none of its modules' files.
pub(super) fn pack(
    kernel: &Kernel,
    guest: &Path,
    beside: &[PathBuf],
    wanted: &[&str],
) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, FOLDER, (0, 0), b"");
    }
    archive.add("dev/console", CHARACTER_DEVICE, CONSOLE, b"");
    archive.add("init", PROGRAM, (0, 0), &fs::read(guest).with_context(|| guest.display().to_string())?);
    let mut folders = BTreeSet::new();
    for path in beside {
        let within = path.strip_prefix("/").with_context(|| path.display().to_string())?;
        let above: Vec<&Path> =
            within.ancestors().skip(1).filter(|one| !one.as_os_str().is_empty()).collect();
        for folder in above.into_iter().rev().filter(|folder| folders.insert(folder.to_path_buf())) {
            archive.add(&folder.display().to_string(), FOLDER, (0, 0), b"");
        }
        let content = fs::read(path).with_context(|| path.display().to_string())?;
        archive.add(&within.display().to_string(), PROGRAM, (0, 0), &content);
    }
    for (number, (name, content)) in modules(&kernel.modules, wanted)?.iter().enumerate() {
        archive.add(&format!("modules/{number:02}-{name}.ko"), PROGRAM, (0, 0), content);
    }
    Ok(archive.end())
}

/// The wanted modules, each behind those that it needs.
fn modules(folder: &Path, wanted: &[&str]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    ensure!(!files.is_empty(), "{}: no modules", folder.display());
    let mut found = Vec::new();
    for name in wanted {
        add(name, &files, DEPTH_MAX, &mut found)?;
    }
    Ok(found)
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => list(&entry.path(), into)?,
            false => into.push(entry.path()),
        }
    }
    Ok(())
}

fn add(
    name: &str,
    files: &[PathBuf],
    depth: usize,
    found: &mut Vec<(String, Vec<u8>)>,
) -> anyhow::Result<()> {
    let is_it = |path: &&PathBuf| {
        let file = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
    };
    if found.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let Some(path) = files.iter().find(is_it) else { return Ok(()) };
    ensure!(depth > 0, "modules need each other without end: {name}");
    let content = read(path)?;
    for needed in needed(&content) {
        add(&needed.replace('-', "_"), files, depth - 1, found)?;
    }
    found.push((name.to_owned(), content));
    Ok(())
}

/// A module, unpacked: not every kernel can do that itself.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.extension() != Some(OsStr::new("xz")) {
        return fs::read(path).with_context(|| path.display().to_string());
    }
    let output = Command::new("xz").arg("-dc").arg(path).output().context("xz")?;
    ensure!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The modules that a module's `.modinfo` names: `depends=one,two`.
fn needed(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A `newc` archive.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // Inode, mode, user, group, links, time, length, device of the file, device that it is, length of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_behind_what_they_need_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, depends: &str| {
            let path = folder.path().join("net").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("ELF\0depends={depends}\0license=GPL\0")).unwrap();
        };
        write("veth.ko", "");
        write("cls_bpf.ko", "lib-one");
        write("lib-one.ko", "lib_two");
        write("lib_two.ko", "");
        let names: Vec<String> = modules(folder.path(), &["veth", "sch_ingress", "cls_bpf"])
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["veth", "lib_two", "lib_one", "cls_bpf"]);
    }

    #[test]
    fn an_entry_is_as_the_format_says() {
        let mut archive = Archive::default();
        archive.add("dev/console", CHARACTER_DEVICE, CONSOLE, b"");
        archive.add("init", PROGRAM, (0, 0), b"abc");
        let text = String::from_utf8(archive.end()).unwrap();
        let first = "070701000000010000218000000000000000000000000100000000000000000000000000000000000000050000000100\
            00000c00000000dev/console\0";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains("init\0\0abc\u{0}070701"), "{text:?}");
        assert!(text.len().is_multiple_of(4) && text.contains("TRAILER!!!"), "{text}");
    }
}
