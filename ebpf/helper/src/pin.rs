//! What lies on the BPF file system, so that it outlives this process:
//! ```text
//! /sys/fs/bpf/caregate/
//!   maps-2/PORTS …         the maps of ABI version 2
//!   xdp-4-native           the XDP link on the interface with index 4, and how it is attached
//!   tc-3                   the program on the interface with index 3 (its filter holds it as well)
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use caregate_ebpf_common::ABI_VERSION;
use caregate_protocol::datapath::Mode;

use crate::error::DatapathError;

/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
const PREFIX_MAPS: &str = "maps-";
const PREFIX_XDP: &str = "xdp-";
const PREFIX_TC: &str = "tc-";

/// The folder of pins.
#[derive(Debug, Clone)]
pub struct Pins {
    folder: PathBuf,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DatapathError {
    let path = path.to_owned();
    move |source| DatapathError::Pin { path, source }
}

/// Makes a folder at mode 0700 if it is not there.
fn make(path: &Path) -> Result<(), DatapathError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(failed(path)),
    }
}

fn remove(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed(path)),
    }
}

/// Whether the folder, or where it is to be made, is on a BPF file system.
///
/// # Errors
/// [`DatapathError::NoBpffs`], [`DatapathError::Pin`].
pub fn check(folder: &Path) -> Result<(), DatapathError> {
    let place = folder.ancestors().find(|place| place.exists()).unwrap_or(folder);
    let found = rustix::fs::statfs(place).map_err(|error| failed(place)(error.into()))?;
    // Of another width on each architecture, and negative where it has 32 bits and a sign.
    let magic = found.f_type.to_le_bytes();
    let is_bpffs = magic.first_chunk() == Some(&BPF_FS_MAGIC.to_le_bytes());
    if is_bpffs { Ok(()) } else { Err(DatapathError::NoBpffs(folder.to_owned())) }
}

impl Pins {
    /// The folder, made where it is not there.
    ///
    /// # Errors
    /// As [`check`].
    pub fn open(folder: &Path) -> Result<Self, DatapathError> {
        check(folder)?;
        make(folder)?;
        let pins = Self { folder: folder.to_owned() };
        make(&pins.maps())?;
        Ok(pins)
    }

    /// The folder of this ABI's maps.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.folder.join(format!("{PREFIX_MAPS}{ABI_VERSION}"))
    }

    /// Whether maps of another ABI lie there: whose, by their folder.
    #[must_use]
    pub fn foreign_maps(&self) -> Vec<PathBuf> {
        let own = self.maps();
        self.paths(PREFIX_MAPS).into_iter().map(|(path, _)| path).filter(|path| *path != own).collect()
    }

    /// The XDP link of an interface, and its mode.
    #[must_use]
    pub fn xdp(&self, interface: u32) -> Option<(PathBuf, Mode)> {
        let modes = [Mode::Native, Mode::Generic];
        modes.into_iter().map(|mode| (self.xdp_path(interface, mode), mode)).find(|(path, _)| path.exists())
    }

    /// Where an XDP link is pinned.
    #[must_use]
    pub fn xdp_path(&self, interface: u32, mode: Mode) -> PathBuf {
        self.folder.join(format!("{PREFIX_XDP}{interface}-{}", mode.as_str()))
    }

    /// Where an uplink's program is pinned.
    #[must_use]
    pub fn tc_path(&self, interface: u32) -> PathBuf {
        self.folder.join(format!("{PREFIX_TC}{interface}"))
    }

    /// Interfaces with an XDP link.
    #[must_use]
    pub fn xdp_interfaces(&self) -> Vec<u32> {
        self.interfaces(PREFIX_XDP)
    }

    /// Interfaces with a tc program.
    #[must_use]
    pub fn tc_interfaces(&self) -> Vec<u32> {
        self.interfaces(PREFIX_TC)
    }

    fn interfaces(&self, prefix: &str) -> Vec<u32> {
        let paths = self.paths(prefix);
        paths.iter().filter_map(|(_, rest)| rest.split('-').next()?.parse().ok()).collect()
    }

    fn paths(&self, prefix: &str) -> Vec<(PathBuf, String)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let named = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let rest = name.strip_prefix(prefix)?.to_owned();
            Some((self.folder.join(name), rest))
        });
        named.collect()
    }

    /// Removes the pin of an XDP link, which detaches it.
    ///
    /// # Errors
    /// [`DatapathError::Pin`].
    pub fn remove_xdp(&self, interface: u32) -> Result<(), DatapathError> {
        for mode in [Mode::Native, Mode::Generic] {
            remove(&self.xdp_path(interface, mode))?;
        }
        Ok(())
    }

    /// Removes the pin of an uplink's program; its filter is another matter.
    ///
    /// # Errors
    /// [`DatapathError::Pin`].
    pub fn remove_tc(&self, interface: u32) -> Result<(), DatapathError> {
        remove(&self.tc_path(interface))
    }

    /// Removes a folder of maps.
    ///
    /// # Errors
    /// [`DatapathError::Pin`].
    pub fn remove_maps(&self, folder: &Path) -> Result<(), DatapathError> {
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            remove(&entry.map_err(failed(folder))?.path())?;
        }
        fs::remove_dir(folder).map_err(failed(folder))
    }

    /// Removes all maps and the folder, once nothing is attached any more.
    ///
    /// # Errors
    /// [`DatapathError::Pin`].
    pub fn remove_all(&self) -> Result<(), DatapathError> {
        for (path, _) in self.paths(PREFIX_MAPS) {
            self.remove_maps(&path)?;
        }
        fs::remove_dir(&self.folder).map_err(failed(&self.folder))
    }
}
