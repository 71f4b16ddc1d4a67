"""Key schedule, segments and wraps once more, from ARCHITECTURE.md and the layouts in protocol/src alone, on Python's `cryptography`.

Reads one JSON object from standard input and writes one to standard output; protocol/tests/keys_foreign.rs has both sides of it.
"""

import hashlib
import hmac
import json
import os
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

HEADER, TAG, SIGNATURE = 112, 16, 64
CIPHERS = {1: AESGCM, 2: ChaCha20Poly1305}


def derive(salt, key, info):
    return HKDF(algorithm=SHA256(), length=32, salt=salt or None, info=info).derive(key)


def class_key(root, of_class, generation):
    return derive(b"", root, b"caregate class 1" + bytes([of_class]) + struct.pack(">I", generation))


def node(key, epoch, depth):
    for level in range(depth):
        key = derive(b"", key, b"caregate tree 1" + bytes([epoch >> (31 - level) & 1]))
    return key


def segment_key(epoch_key, salt, patient, of_class, sequence):
    info = b"caregate segment 1" + patient + bytes([of_class]) + struct.pack(">Q", sequence)
    return derive(salt, epoch_key, info)


# RFC 9180, auth mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
AUTH = b"\2"
KEM = b"KEM" + struct.pack(">H", 0x20)
SUITE = b"HPKE" + struct.pack(">HHH", 0x20, 1, 3)


def labeled_extract(suite, salt, label, ikm):
    return hmac.new(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()


def labeled_expand(suite, prk, label, info, length):
    info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(prk)


def x25519_private(device):
    """RFC 8032 §5.1.5, steps 1 and 2: the scalar of an Ed25519 key."""
    return X25519PrivateKey.from_private_bytes(hashlib.sha512(device.private_bytes_raw()).digest()[:32])


def x25519_public(device):
    """RFC 7748 §4.1: u = (1 + y) / (1 - y)."""
    p = 2**255 - 19
    y = int.from_bytes(device.public_bytes_raw(), "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, -1, p) % p).to_bytes(32, "little")


def hpke_key(shared, enc, public, sender, info):
    prk = labeled_extract(KEM, b"", b"eae_prk", shared)
    secret = labeled_expand(KEM, prk, b"shared_secret", enc + public + sender, 32)
    context = AUTH + labeled_extract(SUITE, b"", b"psk_id_hash", b"")
    context += labeled_extract(SUITE, b"", b"info_hash", info)
    prk = labeled_extract(SUITE, secret, b"secret", b"")
    key = labeled_expand(SUITE, prk, b"key", context, 32)
    return ChaCha20Poly1305(key), labeled_expand(SUITE, prk, b"base_nonce", context, 12)


def hpke_open(private, sender, enc, info, aad, sealed):
    private = X25519PrivateKey.from_private_bytes(private)
    shared = b"".join(private.exchange(X25519PublicKey.from_public_bytes(key)) for key in (enc, sender))
    key, nonce = hpke_key(shared, enc, private.public_key().public_bytes_raw(), sender, info)
    return key.decrypt(nonce, sealed, aad)


def hpke_seal(public, sender, info, aad, plaintext):
    ephemeral = X25519PrivateKey.generate()
    enc = ephemeral.public_key().public_bytes_raw()
    shared = b"".join(key.exchange(X25519PublicKey.from_public_bytes(public)) for key in (ephemeral, sender))
    key, nonce = hpke_key(shared, enc, public, sender.public_key().public_bytes_raw(), info)
    return enc + key.encrypt(nonce, plaintext, aad)


def open_segment(segment, root, device):
    header, body = segment[:HEADER], segment[HEADER:-SIGNATURE]
    signed = b"caregate segment 1\0" + header + hashlib.sha256(body).digest()
    device.verify(segment[-SIGNATURE:], signed)
    of_class, cipher = header[5], header[6]
    patient, salt = header[8:24], header[80:96]
    generation, epoch, sequence = struct.unpack(">IIQ", header[32:48])
    leaf = node(class_key(root, of_class, generation), epoch, 32)
    key = segment_key(leaf, salt, patient, of_class, sequence)
    return CIPHERS[cipher](key).decrypt(bytes(12), body, header)


def seal_segment(header, plaintext, root, device):
    header = bytearray(header)
    header[80:96] = os.urandom(16)
    header[108:112] = struct.pack(">I", len(plaintext) + TAG)
    header = bytes(header)
    generation, epoch, sequence = struct.unpack(">IIQ", header[32:48])
    leaf = node(class_key(root, header[5], generation), epoch, 32)
    key = segment_key(leaf, header[80:96], header[8:24], header[5], sequence)
    body = CIPHERS[header[6]](key).encrypt(bytes(12), plaintext, header)
    signed = b"caregate segment 1\0" + header + hashlib.sha256(body).digest()
    return header + body + device.sign(signed)


def open_wrap(wrap, private, device):
    device.verify(wrap[144:], b"caregate wrap 2\0" + wrap[:144])
    return hpke_open(private, x25519_public(device), wrap[64:96], b"caregate wrap 2", wrap[:64], wrap[96:144])


def seal_wrap(head, key, public, device):
    wrap = head + hpke_seal(public, x25519_private(device), b"caregate wrap 2", head, key)
    return wrap + device.sign(b"caregate wrap 2\0" + wrap)


def main():
    given = {name: value if isinstance(value, int) else bytes.fromhex(value) for name, value in json.load(sys.stdin).items()}
    root, private = given["root"], given["private"]
    device = Ed25519PrivateKey.from_private_bytes(given["device"])
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    known: Ed25519PublicKey = device.public_key()
    tree = class_key(root, given["class"], given["generation"])
    inner = node(tree, given["epoch"], given["depth"])
    head = bytearray(given["wrap"][:64])
    head[60] = given["depth"]
    head[36:40] = struct.pack(">I", given["epoch"] >> (32 - given["depth"]) << (32 - given["depth"]))
    out = {
        "class_key": tree,
        "inner": inner,
        "leaf": node(tree, given["epoch"], 32),
        "opened_aes": open_segment(given["aes"], root, known),
        "opened_chacha": open_segment(given["chacha"], root, known),
        "wrapped": open_wrap(given["wrap"], private, known),
        "sealed_aes": seal_segment(given["aes"][:HEADER], given["plaintext"], root, device),
        "sealed_chacha": seal_segment(given["chacha"][:HEADER], given["plaintext"], root, device),
        "sealed_wrap": seal_wrap(bytes(head), inner, public, device),
    }
    json.dump({name: value.hex() for name, value in out.items()}, sys.stdout)


main()
