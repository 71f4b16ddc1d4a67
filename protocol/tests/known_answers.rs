//! The primitives under the key schedule, segments and wraps, as this crate links them, against the answers that their standards print.

#![expect(clippy::unwrap_used, reason = "tests")]

use ed25519_dalek::{Signer as _, SigningKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, Serializable as _, single_shot_open};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

/// RFC 9180 appendix A.2: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Everything there is of this text.
const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
const PLAINTEXT: &str = "4265617574792069732074727574682c20747275746820626561757479";
const AAD: &str = "436f756e742d30";

fn open(
    mode: &OpModeR<'_, X25519HkdfSha256>,
    private: &str,
    enc: &str,
    sealed: &str,
) -> Result<Vec<u8>, hpke::HpkeError> {
    let private = PrivateKey::from_bytes(&bytes(private))?;
    let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&bytes(enc))?;
    single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        mode,
        &private,
        &enc,
        &bytes(INFO),
        &bytes(sealed),
        &bytes(AAD),
    )
}

#[test]
fn hpke_base_mode_rfc_9180_a_2_1() {
    let private = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb";
    let enc = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a";
    let sealed = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28";
    assert_eq!(open(&OpModeR::Base, private, enc, sealed).unwrap(), bytes(PLAINTEXT));
    let public = bytes("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
    let derived = X25519HkdfSha256::sk_to_pk(&PrivateKey::from_bytes(&bytes(private)).unwrap());
    assert_eq!(derived.to_bytes().to_vec(), public);
    let ikm = bytes("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df");
    assert_eq!(X25519HkdfSha256::derive_keypair(&ikm).1.to_bytes().to_vec(), public, "from ikmR");
    // Each of the parts counts.
    let other = sealed.replace("1c52", "1c53");
    assert!(open(&OpModeR::Base, private, enc, &other).is_err());
}

#[test]
fn hpke_auth_mode_rfc_9180_a_2_3() {
    let private = "3ca22a6d1cda1bb9480949ec5329d3bf0b080ca4c45879c95eddb55c70b80b82";
    let enc = "f7674cc8cd7baa5872d1f33dbaffe3314239f6197ddf5ded1746760bfc847e0e";
    let sealed = "ab1a13c9d4f01a87ec3440dbd756e2677bd2ecf9df0ce7ed73869b98e00c09be111cb9fdf077347aeb88e61bdf";
    let sender = "f0f4f9e96c54aeed3f323de8534fffd7e0577e4ce269896716bcb95643c8712b";
    let sender = PublicKey::from_bytes(&bytes(sender)).unwrap();
    assert_eq!(open(&OpModeR::Auth(sender), private, enc, sealed).unwrap(), bytes(PLAINTEXT));
    // By somebody else, and by nobody.
    let other = PublicKey::from_bytes(&bytes(enc)).unwrap();
    assert!(open(&OpModeR::Auth(other), private, enc, sealed).is_err());
    assert!(open(&OpModeR::Base, private, enc, sealed).is_err());
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[test]
fn hkdf_sha_256_rfc_5869_appendix_a() {
    let cases = [
        // A.1: with salt and info.
        (
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        // A.3: without either.
        ("", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
    ];
    for (salt, info, expected) in cases {
        let mut out = [0; 42];
        let info = bytes(info);
        let info = [info.as_slice()];
        let key = Salt::new(HKDF_SHA256, &bytes(salt)).extract(&[0x0b; 22]);
        key.expand(&info, Length(42)).and_then(|okm| okm.fill(&mut out)).unwrap();
        assert_eq!(out.to_vec(), bytes(expected));
    }
}

fn aead(algorithm: &'static Algorithm, key: &str, nonce: &str, aad: &str, plaintext: &[u8], sealed: &str) {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &bytes(key)).unwrap());
    let nonce = || Nonce::try_assume_unique_for_key(&bytes(nonce)).unwrap();
    let mut buffer = plaintext.to_vec();
    key.seal_in_place_append_tag(nonce(), Aad::from(bytes(aad)), &mut buffer).unwrap();
    assert_eq!(buffer, bytes(sealed));
    let opened = key.open_in_place(nonce(), Aad::from(bytes(aad)), &mut buffer).unwrap();
    assert_eq!(opened, plaintext);
    let mut changed = bytes(sealed);
    changed[3] ^= 1;
    assert!(key.open_in_place(nonce(), Aad::from(bytes(aad)), &mut changed).is_err());
}

#[test]
fn chacha20_poly1305_rfc_8439_2_8_2() {
    aead(
        &CHACHA20_POLY1305,
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen \
          would be it.",
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e\
         060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576\
         d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    );
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16, which NIST SP 800-38D refers to; RFC 5288 prints none.
#[test]
fn aes_256_gcm_test_case_16() {
    let plaintext = bytes(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0d\
         e657ba637b39",
    );
    aead(
        &AES_256_GCM,
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        &plaintext,
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba\
         7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    );
}

#[test]
fn ed25519_rfc_8032_7_1() {
    let cases = [
        // TEST 1: of nothing.
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595b\
             be24655141438e7a100b",
        ),
        // TEST 3.
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716e\
             d28dc027beceea1ec40a",
        ),
    ];
    for (secret, public, message, signature) in cases {
        let key = SigningKey::from_bytes(&bytes(secret).try_into().unwrap());
        assert_eq!(key.verifying_key().to_bytes().to_vec(), bytes(public));
        let signed = key.sign(&bytes(message));
        assert_eq!(signed.to_bytes().to_vec(), bytes(signature));
        key.verifying_key().verify_strict(&bytes(message), &signed).unwrap();
        assert!(key.verifying_key().verify_strict(b"another", &signed).is_err());
    }
}
