// Wraps once more, by @hpke/core in auth mode: opens the one that is given and seals one of the same key. protocol/tests/keys_foreign.rs has both
// sides of it.
import { createHash, createPrivateKey, sign, verify, createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'

import { Chacha20Poly1305 } from '@hpke/chacha20poly1305'
import { CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core'

const given = JSON.parse(readFileSync(0, 'utf8'))
const bytes = (name) => new Uint8Array(Buffer.from(given[name], 'hex'))
const hex = (value) => Buffer.from(value).toString('hex')

const suite = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Chacha20Poly1305(),
})
const info = new TextEncoder().encode('caregate wrap 2')
const prefix = Buffer.from('caregate wrap 2\0')

// RFC 8410: a PKCS #8 frame around the 32 bytes of an Ed25519 key.
const frame = Buffer.from('302e020100300506032b657004220420', 'hex')
const device = createPrivateKey({ key: Buffer.concat([frame, bytes('device')]), format: 'der', type: 'pkcs8' })

const wrap = bytes('wrap')
const signed = Buffer.concat([prefix, wrap.subarray(0, 144)])
if (!verify(null, signed, createPublicKey(device), wrap.subarray(144))) throw new Error('the signature does not hold')

const recipientKey = await suite.kem.importKey('raw', bytes('private'), false)
const recipientPublicKey = await suite.kem.importKey('raw', bytes('public'), true)
// RFC 8032 §5.1.5, steps 1 and 2: the scalar of the device key, which is the sender's; RFC 7748 §4.1: u = (1 + y) / (1 - y), of its public half.
const scalar = new Uint8Array(createHash('sha512').update(bytes('device')).digest().subarray(0, 32))
const senderKey = await suite.kem.importKey('raw', scalar, false)
const p = 2n ** 255n - 19n
const power = (base, exponent) => {
  let result = 1n
  for (; exponent; exponent >>= 1n, base = (base * base) % p) if (exponent & 1n) result = (result * base) % p
  return result
}
const little = (value) => BigInt('0x' + hex(Buffer.from(value).reverse()))
const y = little(createPublicKey(device).export({ format: 'der', type: 'spki' }).subarray(-32)) & (2n ** 255n - 1n)
const u = ((1n + y) * power(p + 1n - y, p - 2n)) % p
const senderBytes = Buffer.from(u.toString(16).padStart(64, '0'), 'hex').reverse()
const senderPublicKey = await suite.kem.importKey('raw', new Uint8Array(senderBytes), true)

const head = wrap.slice(0, 64)
const from = { recipientKey, senderPublicKey, enc: wrap.slice(64, 96), info }
const opened = await suite.open(from, wrap.slice(96, 144), head)
const sealed = await suite.seal({ recipientPublicKey, senderKey, info }, opened, head)
const body = Buffer.concat([head, new Uint8Array(sealed.enc), new Uint8Array(sealed.ct)])
const signature = sign(null, Buffer.concat([prefix, body]), device)
console.log(JSON.stringify({ wrapped: hex(opened), sealed_wrap: hex(Buffer.concat([body, signature])) }))
