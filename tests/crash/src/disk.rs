//! Files by their names, with a folder before them or without, and the power cut.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::pages::Pages;
use crate::random::Random;

/// Whether syncs do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    /// They do.
    Real,
    /// They say so and don't.
    TakenOut,
}

/// The folder in a name; empty for what lies in none.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A change of names that the directory's sync has not covered.
#[derive(Debug, Clone)]
enum Change {
    Made(String, usize),
    Moved(String, String, usize),
    Removed(String),
}

impl Change {
    /// Nothing is moved from one folder to another.
    fn folder(&self) -> &str {
        match self {
            Self::Made(name, _) | Self::Moved(name, _, _) | Self::Removed(name) => folder_of(name),
        }
    }
}

/// What is found after a power cut: each file by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Contents by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Writes the files into `dir`, which has to be there and empty, and those of folders into folders in it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| {
            std::fs::create_dir_all(dir.join(folder_of(name)))?;
            std::fs::write(dir.join(name), bytes)
        })
    }
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    syncs: Syncs,
    /// All files that ever were; a name points to one.
    files: Vec<Pages>,
    /// As programs see it.
    names: BTreeMap<String, usize>,
    /// As it was at the last sync.
    durable: BTreeMap<String, usize>,
    changes: Vec<Change>,
    steps: u64,
    cut_at: u64,
    random: Random,
    cut: Option<Image>,
}

impl Disk {
    /// A disk that holds `files` durably and whose power fails at step `cut_at` (from 0); `random` chooses what is left then.
    #[must_use]
    pub fn new(files: &BTreeMap<String, Vec<u8>>, syncs: Syncs, cut_at: u64, random: Random) -> Self {
        let pages = files.values().map(|bytes| Pages::durable(bytes)).collect();
        let names: BTreeMap<_, _> = files.keys().cloned().zip(0..).collect();
        let durable = names.clone();
        Self { syncs, files: pages, names, durable, changes: Vec::new(), steps: 0, cut_at, random, cut: None }
    }

    /// What is left, once the power has failed. Nothing that a program has been told since counts.
    #[must_use]
    pub fn cut(&self) -> Option<&Image> {
        self.cut.as_ref()
    }

    /// The power fails now, if it has not before.
    pub fn cut_now(&mut self) -> Image {
        if self.cut.is_none() {
            self.cut = Some(self.image());
        }
        self.cut.clone().unwrap_or_else(|| Image { files: BTreeMap::new() })
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn step(&mut self) {
        if self.steps == self.cut_at && self.cut.is_none() {
            self.cut = Some(self.image());
        }
        self.steps += 1;
    }

    fn image(&mut self) -> Image {
        let mut names = self.durable.clone();
        for change in &self.changes {
            if self.random.one_in(2) {
                continue;
            }
            match change {
                Change::Made(name, file) => drop(names.insert(name.clone(), *file)),
                Change::Moved(from, to, file) => {
                    if names.get(from) == Some(file) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *file);
                }
                Change::Removed(name) => drop(names.remove(name)),
            }
        }
        let Self { files, random, .. } = self;
        let files = names.into_iter().map(|(name, file)| (name, files[file].cut(random))).collect();
        Image { files }
    }

    fn file(&mut self, name: &str) -> Option<&mut Pages> {
        let at = *self.names.get(name)?;
        self.files.get_mut(at)
    }

    /// A file is opened, and made if it is not there.
    pub fn create(&mut self, name: &str) {
        self.step();
        if !self.names.contains_key(name) {
            let file = self.files.len();
            self.files.push(Pages::default());
            self.names.insert(name.into(), file);
            self.changes.push(Change::Made(name.into(), file));
        }
    }

    /// Bytes are written.
    pub fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) {
        self.step();
        if let (Some(file), Ok(offset)) = (self.file(name), usize::try_from(offset)) {
            file.write(offset, bytes);
        }
    }

    /// A file is cut or lengthened.
    pub fn set_len(&mut self, name: &str, len: u64) {
        self.step();
        if let (Some(file), Ok(len)) = (self.file(name), usize::try_from(len)) {
            file.set_len(len);
        }
    }

    /// Room up to `len` is allocated.
    pub fn allocate(&mut self, name: &str, len: u64) {
        self.step();
        if let (Some(file), Ok(len)) = (self.file(name), usize::try_from(len)) {
            file.set_len(len.max(file.len()));
        }
    }

    /// A file's contents and length are synced.
    pub fn sync(&mut self, name: &str) {
        self.step();
        if self.syncs == Syncs::Real
            && let Some(file) = self.file(name)
        {
            file.sync();
        }
    }

    /// A sync failed.
    pub fn fail_sync(&mut self, name: &str) {
        self.step();
        if let Some(file) = self.file(name) {
            file.fail_sync();
        }
    }

    /// A file takes another name; what had that name is gone.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.step();
        if let Some(file) = self.names.remove(from) {
            self.names.insert(to.into(), file);
            self.changes.push(Change::Moved(from.into(), to.into(), file));
        }
    }

    /// A file is removed.
    pub fn remove(&mut self, name: &str) {
        self.step();
        if self.names.remove(name).is_some() {
            self.changes.push(Change::Removed(name.into()));
        }
    }

    /// The names are synced, of files that lie in no folder.
    pub fn sync_names(&mut self) {
        self.sync_names_in("");
    }

    /// The names of a folder are synced.
    pub fn sync_names_in(&mut self, folder: &str) {
        self.step();
        if self.syncs == Syncs::Real {
            self.durable.retain(|name, _| folder_of(name) != folder);
            let there = self.names.iter().filter(|(name, _)| folder_of(name) == folder);
            self.durable.extend(there.map(|(name, file)| (name.clone(), *file)));
            self.changes.retain(|change| change.folder() != folder);
        }
    }

    /// A file's length as programs see it; 0 where there is none.
    #[must_use]
    pub fn len(&self, name: &str) -> u64 {
        self.names.get(name).map_or(0, |file| self.files[*file].len() as u64)
    }

    /// Whether there is no file of that name, or nothing in it.
    #[must_use]
    pub fn is_empty(&self, name: &str) -> bool {
        self.len(name) == 0
    }

    /// Reads as programs do.
    pub fn read(&self, name: &str, offset: u64, out: &mut [u8]) {
        if let (Some(file), Ok(offset)) = (self.names.get(name), usize::try_from(offset)) {
            self.files[*file].read(offset, out);
        }
    }
}
