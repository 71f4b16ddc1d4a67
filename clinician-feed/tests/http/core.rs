//! A real core on loopback with what a gateway has sealed for us, and the files that the daemon is started with.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caregate_host::identity::{Identity, IdentityFiles, Role};
use caregate_host::journal::Journal;
use caregate_protocol::alarm::Standing;
use caregate_protocol::audit::verify::{self, Disagreement};
use caregate_protocol::audit::{Entry, Hash, Line, What};
use caregate_protocol::erasure::{self, Erasure, Receipt, SignedErasure};
use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::key::{PatientRoot, TREE_DEPTH};
use caregate_protocol::reading::{self, Reading, Value};
use caregate_protocol::record::Record;
use caregate_protocol::search::{Token, Tokens, Word};
use caregate_protocol::segment::{Cipher, Header, SegmentHash, signer_id};
use caregate_protocol::wrap::{HpkePrivateKey, WrapScope, generate_keypair};
use clinician_feed::password;
use core_cloud::config::Peers;
use core_cloud::metrics::Metrics;
use core_cloud::owners::Owners;
use core_cloud::preview::Previews;
use core_cloud::search::SearchIndex;
use core_cloud::server::{self, Shared};
use core_cloud::store::{Embedded, Erased, Outcome, Store};
use core_cloud::tenants::Tenants;
use core_cloud::writer;
use ed25519_dalek::SigningKey;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{PASSWORD, PATIENT, USER, heart_rate};

const EPOCH: u32 = 29_000_000;
const RECIPIENT: RecipientId = RecipientId([5; 20]);

pub(crate) struct Core {
    recipient: RecipientId,
    dir: TempDir,
    address: SocketAddr,
    feed_identity: IdentityFiles,
    private_key: HpkePrivateKey,
    device: SigningKey,
    store: Arc<dyn Store>,
    stored: watch::Sender<u64>,
    search: Arc<SearchIndex>,
    journal: Arc<Journal>,
    previews: Previews,
    stop: CancellationToken,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn write_private(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

pub(crate) fn issue(
    dir: &TempDir,
    ca: (&str, &Issuer<'static, KeyPair>),
    role: Role,
    name: &str,
) -> IdentityFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let id = format!("spiffe://test.example/{role}/{name}");
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let file = |kind: &str| dir.path().join(format!("{role}-{kind}.pem"));
    let certificate = params.signed_by(&key, ca.1).unwrap().pem();
    IdentityFiles {
        certificate: write_private(file("certificate"), &certificate),
        key: write_private(file("key"), &key.serialize_pem()),
        ca: write_private(file("ca"), ca.0),
    }
}

impl Core {
    pub(crate) fn start() -> Self {
        Self::start_for(RECIPIENT)
    }

    pub(crate) fn start_for(recipient: RecipientId) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let core_identity = Identity::load(&issue(&dir, (&pem, &issuer), Role::Core, "core-1")).unwrap();
        let feed_identity = issue(&dir, (&pem, &issuer), Role::Feed, "hospital-1");
        let endpoint = server::bind("127.0.0.1:0".parse().unwrap(), &core_identity).unwrap();
        let address = endpoint.local_addr().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        let (stored_out, stored) = watch::channel(0);
        let feeds = HashMap::from([("hospital-1".to_owned(), vec![recipient])]);
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let (queue, _no_gateways_here) = writer::queue(&metrics);
        let previews = Previews::new([], metrics.clone());
        let search = Arc::new(SearchIndex::open(dir.path()).unwrap());
        let journal = Arc::new(Journal::open(&dir.path().join("core-journal.jsonl")).unwrap().0);
        let shared = Shared {
            revoked: ledger_chain::RevokedGateways::none(),
            owners: Owners::new([], &Peers::default(), ledger_chain::RevokedGateways::none()),
            search: Arc::clone(&search),
            peers: Arc::new(Peers { gateways: HashMap::new(), feeds }),
            store: Arc::clone(&store),
            writer: queue,
            stored,
            journal: Arc::clone(&journal),
            receipt_key: SigningKey::from_bytes(&[42; 32]),
            previews: previews.clone(),
            tenants: Tenants::default(),
            metrics,
        };
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(endpoint, None, shared, stop.clone()));
        let (private_key, _) = generate_keypair();
        let device = SigningKey::from_bytes(&[3; 32]);
        let stored = stored_out;
        let core = Self {
            recipient,
            dir,
            address,
            feed_identity,
            private_key,
            device,
            store,
            stored,
            search,
            journal,
            previews,
            stop,
        };
        core.wrap(DataClass::Vitals);
        core
    }

    /// Lets the feed open a class.
    pub(crate) fn wrap(&self, class: DataClass) {
        let scope = WrapScope { class, patient: PATIENT, generation: 0, recipient: self.recipient };
        let leaf = root().class_key(class, 0).descend(EPOCH, TREE_DEPTH).unwrap();
        let public_key = self.private_key.public_key().unwrap();
        let wrap = scope.seal(&leaf, &public_key, &self.device).unwrap().to_vec();
        self.previews.take(&Record::decode(&wrap).unwrap(), &wrap, false);
        self.put(wrap);
    }

    fn put(&self, record: Vec<u8>) {
        assert_eq!(self.store.put(&[record]).unwrap(), [Outcome::Stored]);
        self.stored.send_modify(|count| *count += 1);
    }

    /// Shows a segment as a gateway's live record, and says how to store it.
    pub(crate) fn show(&self, sequence: u64, prev: SegmentHash) -> impl FnOnce() {
        let (segment, _) = self.sealed(DataClass::Vitals, sequence, prev, heart_rate(60.0));
        self.previews.take(&Record::decode(&segment).unwrap(), &segment, true);
        move || self.put(segment)
    }

    /// Erases the patient, as its gateway asks; answers with how many receipts of feeds there are.
    pub(crate) fn erase(&self) -> impl Fn() -> usize {
        let request = Erasure { patient: PATIENT, made_us: 7 }.sign(&self.device);
        let request = SignedErasure::decode(&request).unwrap();
        let own = [signer_id(&self.device.verifying_key())];
        assert!(matches!(self.store.erase(&request, &own, 9).unwrap(), Erased::Done { .. }));
        self.stored.send_modify(|count| *count += 1);
        move || {
            let receipts = self.store.receipts(PATIENT).unwrap();
            let of_feed = |bytes: &Vec<u8>| Receipt::verify(bytes).unwrap().0.issuer == erasure::Issuer::Feed;
            receipts.iter().filter(|bytes| of_feed(bytes)).count()
        }
    }

    /// Whether the feed wants to be shown what is not durable.
    pub(crate) fn is_viewed(&self) -> bool {
        self.previews.views() > 0
    }

    /// Stores a segment of one reading after `prev`; answers with its hash.
    pub(crate) fn segment(&self, sequence: u64, prev: SegmentHash) -> SegmentHash {
        self.segment_of(sequence, prev, heart_rate(60.0))
    }

    pub(crate) fn segment_of(&self, sequence: u64, prev: SegmentHash, reading: Reading) -> SegmentHash {
        let (segment, hash) = self.sealed(DataClass::Vitals, sequence, prev, reading);
        self.put(segment);
        hash
    }

    /// Stores a standing after `prev`, to be found by the kinds of its alarms; answers with its segment's hash.
    pub(crate) fn standing(&self, sequence: u64, prev: SegmentHash, standing: Standing) -> SegmentHash {
        let class = DataClass::Alarm;
        let key = root().class_key(class, 0).epoch_key(EPOCH).unwrap();
        let words = Word::of(&standing).into_iter().map(|word| word.token(&key, PATIENT, class));
        let random = std::array::from_fn(|n| Token([u8::try_from(n).unwrap(); 16]));
        let tokens = Tokens::fill(words, random);
        let (patient, generation, epoch) = (PATIENT, 0, EPOCH);
        self.search.put(&[Tokens { class, patient, generation, epoch, sequence, tokens }]).unwrap();
        let value = Value::Standing(Box::new(standing));
        let (segment, hash) = self.sealed(class, sequence, prev, crate::reading("watch", None, value));
        self.put(segment);
        hash
    }

    /// Holds a feed's log against the core's, up to their ends.
    pub(crate) fn agrees_with(&self, feed: &[Line]) -> Result<i64, Disagreement> {
        let (text, _) = self.journal.end(1 << 20).unwrap();
        verify::agree(self.recipient, &ended(feed.to_vec()), &ended(lines(&text)), &[])
    }

    fn sealed(
        &self,
        class: DataClass,
        sequence: u64,
        prev: SegmentHash,
        reading: Reading,
    ) -> (Vec<u8>, SegmentHash) {
        let header = Header {
            class,
            cipher: Cipher::Aes256Gcm,
            patient: PATIENT,
            signer: signer_id(&self.device.verifying_key()),
            generation: 0,
            epoch: EPOCH,
            sequence,
            prev,
            salt: [9; 16],
            sealed_us: 0,
            readings: 1,
        };
        let key = root().class_key(class, 0).epoch_key(EPOCH).unwrap();
        let plaintext = reading::encode(&[reading]);
        header.seal(&plaintext, &key, &self.device).unwrap()
    }

    /// The daemon's configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        let key = write_private(self.dir.path().join("hpke"), &hex::encode(self.private_key.as_bytes()));
        let IdentityFiles { certificate, key: tls_key, ca } = &self.feed_identity;
        let mut text = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nlog = \"json\"\nrecipient = \"{}\"\n\
             hpke_key = {key:?}\njournal = {:?}\n\
             identity = {{ certificate = {certificate:?}, key = {tls_key:?}, ca = {ca:?} }}\n\
             [core]\naddress = \"{}\"\nname = \"core-1\"\n",
            self.recipient,
            self.dir.path().join("journal.jsonl"),
            self.address
        );
        let device = hex::encode(self.device.verifying_key().as_bytes());
        writeln!(text, "[[gateway]]\nname = \"gateway-1\"\ndevice_keys = [\"{device}\"]").unwrap();
        let hash = password::hash(PASSWORD).unwrap();
        writeln!(text, "[[user]]\nname = \"{USER}\"\npassword_hash = \"{hash}\"").unwrap();
        writeln!(text, "[[bed]]\npatient = \"{PATIENT}\"\nbed = \"Bed 1\"\ncategory = \"adult\"").unwrap();
        write_private(self.dir.path().join("feed.toml"), &text)
    }
}

/// A certificate for `localhost` as a browser would be shown, with its key; and itself as what to trust.
pub(crate) fn web_certificate(config: &Path) -> (PathBuf, PathBuf, CertificateDer<'static>) {
    let dir = config.parent().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (
        write_private(dir.join("web.pem"), &certificate.pem()),
        write_private(dir.join("web.key"), &key.serialize_pem()),
        certificate.der().clone(),
    )
}

/// The entries of a log that is whole.
pub(crate) fn lines(text: &[u8]) -> Vec<Line> {
    verify::log(text, &[]).unwrap().lines
}

/// With an entry that is later than all that is compared.
fn ended(mut log: Vec<Line>) -> Vec<Line> {
    let entry = Entry { at_ms: i64::MAX, what: What::PolicyFresh };
    log.push(Line { n: log.len() as u64 + 1, prev: Hash::NONE, entry });
    log
}

fn root() -> PatientRoot {
    PatientRoot::from_bytes([7; 32])
}
