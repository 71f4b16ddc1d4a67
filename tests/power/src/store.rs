//! The core alone, as the process that it is: a gateway's end of the uplink sends records until they are acknowledged, and has every
//! fourth pseudonym erased.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, anyhow, ensure};
use caregate_crash::Random;
use caregate_guest::power::Report;
use caregate_host::clock;
use caregate_protocol::erasure::{Erasure, Receipt, SignedErasure};
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::segment::signer_id;
use caregate_protocol::uplink::Refusal;
use core_cloud::erase::receipt_key;
use core_cloud::search::SearchIndex;
use core_cloud::store::{Embedded, Erased, Outcome, Store};
use tokio::runtime::{Builder, Runtime};

use crate::PLACE;
use crate::records::{Sealing, recipient};
use crate::site::{Site, Surroundings};
use crate::told::Told;
use crate::uplink::{Uplink, identity};
use crate::work::{Mark, Work};

/// Of each patient: a wrap, then its segments.
const RECORDS_PER_PATIENT: u64 = 12;
/// One patient in so many is erased, when those behind it are complete.
const ERASED_EVERY: u64 = 4;
/// Records that are on their way at once.
const BATCH_MAX: u64 = 5;
/// Bytes of a page of the core's queue.
const PAGE_BYTES: usize = 1 << 20;
/// Records that a core which goes on after a power cut is sent.
const RESUMED_RECORDS: u64 = 6;

/// What holds from a mark on.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    /// So many records, in their order, are acknowledged.
    acknowledged: u64,
    /// So many erasures were asked for.
    asked: u64,
    /// For so many there is a receipt.
    received: u64,
}

/// A run of the core.
struct Lived {
    site: Site,
    core: SocketAddr,
    records: Vec<Vec<u8>>,
    receipts: Vec<Vec<u8>>,
    promises: Vec<Promise>,
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("a runtime")
}

fn sealing(site: &Site, patient: u64) -> Sealing {
    let number = u8::try_from(patient % 256).unwrap_or_default();
    Sealing { device: site.device_key.clone(), patient: PatientId([number; 16]) }
}

/// Of what number, among a patient's records.
fn record(site: &Site, number: u64) -> Vec<u8> {
    let sealing = sealing(site, number / RECORDS_PER_PATIENT);
    match number % RECORDS_PER_PATIENT {
        0 => sealing.wrap(1),
        nth => sealing.segment_of(nth - 1, usize::try_from(number * 97 % 3000).unwrap_or_default()),
    }
}

/// The patient of an erasure, by its number.
fn erased(number: u64) -> u64 {
    ERASED_EVERY * number + 1
}

/// The erasure of a patient, by its number, where there is one.
fn erasure_of(patient: u64) -> Option<u64> {
    (patient % ERASED_EVERY == 1).then_some(patient / ERASED_EVERY)
}

fn request(site: &Site, patient: u64) -> Vec<u8> {
    Erasure { patient: sealing(site, patient).patient, made_us: 7 }.sign(&site.device_key).to_vec()
}

/// Sends so many records.
pub(crate) fn live(told: &Told, mark: &Mark<'_>) -> anyhow::Result<Box<dyn Work>> {
    let around = Surroundings { data: Some(PLACE.into()), ..Surroundings::loopback() };
    let (site, core) = (Site::within(&["monitor-1"], &around), around.core);
    ensure!(told.amount / RECORDS_PER_PATIENT < 256, "more patients than numbers for them");
    let records = (0..told.amount).map(|number| record(&site, number)).collect();
    let mut lived = Lived { site, core, records, receipts: Vec::new(), promises: Vec::new() };
    let mut daemon = lived.site.core();
    runtime()?.block_on(lived.work(Random::new(told.seed), mark))?;
    ensure!(daemon.stop().success(), "the core did not end well");
    Ok(Box::new(lived))
}

impl Lived {
    async fn work(&mut self, mut random: Random, mark: &Mark<'_>) -> anyhow::Result<()> {
        let mut uplink = Uplink::open(self.core, &*identity(self.site.dir.path())?).await?;
        let mut promise = Promise::default();
        let all = self.records.len() as u64;
        while promise.acknowledged < all {
            let until = all.min(promise.acknowledged + 1 + random.below(BATCH_MAX));
            let batch: Vec<_> =
                (promise.acknowledged..until).filter_map(|number| self.numbered(number)).collect();
            ensure!(uplink.put(&batch).await?.is_empty(), "refused as erased, and nobody asked for that");
            promise.acknowledged = until;
            self.made(promise, mark)?;
            if promise.acknowledged / RECORDS_PER_PATIENT >= ERASED_EVERY * (promise.asked + 1) {
                promise.asked += 1;
                self.made(promise, mark)?;
                let request = request(&self.site, erased(promise.received));
                self.receipts.push(uplink.erase(&request).await?);
                promise.received += 1;
                self.made(promise, mark)?;
            }
        }
        Ok(())
    }

    fn made(&mut self, promise: Promise, mark: &Mark<'_>) -> anyhow::Result<()> {
        mark(self.promises.len())?;
        self.promises.push(promise);
        Ok(())
    }

    fn numbered(&self, number: u64) -> Option<(u64, &[u8])> {
        Some((number, self.records.get(usize::try_from(number).ok()?)?))
    }

    fn promise(&self, mark: usize) -> Promise {
        self.promises.get(mark).copied().unwrap_or_default()
    }

    /// What is at the core, by record: how often in the recipient's queue.
    fn queue(&self, store: &Embedded, report: &mut Report) -> anyhow::Result<BTreeMap<Vec<u8>, u64>> {
        let (mut at, mut times) = (0, BTreeMap::<Vec<u8>, u64>::new());
        loop {
            let page = store.page(recipient(1), at, u64::MAX, PAGE_BYTES)?;
            if page.next == at {
                break;
            }
            for (_, record) in page.records {
                *times.entry(record).or_default() += 1;
            }
            at = page.next;
        }
        report.duplicated += times.values().filter(|times| **times > 1).count() as u64;
        let all = self.records.len() as u64;
        let requests = (0..=all / RECORDS_PER_PATIENT).map(|patient| request(&self.site, patient));
        let requests: Vec<Vec<u8>> = requests.collect();
        let is_known = |record: &&Vec<u8>| self.records.contains(record) || requests.contains(record);
        report.undetected_corruptions += times.keys().filter(|record| !is_known(record)).count() as u64;
        Ok(times)
    }

    /// How many of a patient's acknowledged records are missing, and how many are there.
    fn patients(&self, patient: u64, promise: Promise, times: &BTreeMap<Vec<u8>, u64>) -> (u64, u64) {
        let first = patient * RECORDS_PER_PATIENT;
        let numbers = first..promise.acknowledged.min(first + RECORDS_PER_PATIENT);
        let records = numbers.filter_map(|number| self.numbered(number));
        let (there, missing): (Vec<_>, Vec<_>) = records.partition(|(_, record)| times.contains_key(*record));
        (missing.len() as u64, there.len() as u64)
    }

    /// What is wrong with an erasure for which there is a receipt: anything is there, or taken, or the core says another number.
    fn faults_of_erasure(&self, store: &Embedded, number: u64, there: u64) -> anyhow::Result<u64> {
        let patient = erased(number);
        let receipt = self.receipts.get(usize::try_from(number)?).context("a receipt")?;
        let (receipt, _key) = Receipt::verify(receipt)?;
        let late = sealing(&self.site, patient).segment_of(RECORDS_PER_PATIENT, 10);
        let outcome = store.put(&[late])?;
        let segment = store.segment(sealing(&self.site, patient).patient, DataClass::Vitals, 0)?;
        let own = [signer_id(&self.site.device_key.verifying_key())];
        let signed = SignedErasure::decode(&request(&self.site, patient))?;
        let again = store.erase(&signed, &own, clock::now_us())?;
        let Receipt { records, bytes, erased_us, .. } = receipt;
        let is_good = there == 0
            && segment.is_none()
            && outcome == [Outcome::Refused(Refusal::Erased)]
            && again == Erased::Done { records, bytes, erased_us };
        Ok(u64::from(!is_good))
    }

    fn files(&self, promise: Promise) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let folder = self.site.store();
        let store = Embedded::open(&folder).context("core.redb")?;
        drop(SearchIndex::open(&folder).context("the search index")?);
        crate::pipeline::is_chained(&folder.join("journal.jsonl"))?;
        let times = self.queue(&store, &mut report)?;
        for patient in 0..=promise.acknowledged / RECORDS_PER_PATIENT {
            let (missing, there) = self.patients(patient, promise, &times);
            report.lost += match erasure_of(patient) {
                Some(number) if number < promise.received => self.faults_of_erasure(&store, number, there)?,
                // It was begun, and is carried out by whoever opens the store, or it was not.
                Some(number) if number < promise.asked => u64::from(missing > 0 && there > 0),
                Some(_) | None => missing,
            };
        }
        let key = receipt_key(&folder).context("the key of receipts")?.verifying_key();
        let signed = self.receipts.iter().take(usize::try_from(promise.received)?);
        for receipt in signed {
            let (_, by) = Receipt::verify(receipt)?;
            report.lost += u64::from(by != key);
        }
        Ok(report)
    }

    /// Starts the core on what is left: what was not acknowledged comes again, with something that was, and something that is erased.
    fn resume(&self, promise: Promise) -> anyhow::Result<Report> {
        let mut daemon = self.site.core();
        let until = promise.acknowledged + RESUMED_RECORDS;
        let mut batch: Vec<_> =
            (promise.acknowledged..until).filter_map(|number| self.numbered(number)).collect();
        batch.extend(self.numbered(0));
        let gone: Vec<u64> =
            (0..promise.received).map(|number| erased(number) * RECORDS_PER_PATIENT + 1).collect();
        batch.extend(gone.iter().filter_map(|number| self.numbered(*number)));
        let refused = runtime()?.block_on(async {
            let mut uplink = Uplink::open(self.core, &*identity(self.site.dir.path())?).await?;
            uplink.put(&batch).await
        })?;
        ensure!(refused.iter().eq(&gone), "refused as erased: {refused:?}, and erased are {gone:?}");
        ensure!(daemon.stop().success(), "the core did not end well");
        let acknowledged = until.min(self.records.len() as u64);
        let report = self.files(Promise { acknowledged, ..promise })?;
        Ok(Report { resumed: 1, ..report })
    }
}

impl Work for Lived {
    fn promised(&self) -> u64 {
        let last = self.promises.last().copied().unwrap_or_default();
        last.acknowledged + last.received
    }

    fn due(&self, mark: usize) -> u64 {
        let promise = self.promise(mark);
        promise.acknowledged.saturating_sub(promise.asked * RECORDS_PER_PATIENT) + promise.received
    }

    fn check(&self, mark: usize, resumes: bool) -> anyhow::Result<Report> {
        let promise = *self.promises.get(mark).ok_or_else(|| anyhow!("a mark that nobody made"))?;
        let mut report = self.files(promise)?;
        if resumes {
            report += self.resume(promise)?;
        }
        Ok(report)
    }
}
