//! Real certificates, real handshakes: every check that a peer must pass, and the replacement of files beneath running servers.

mod files;
mod handshake;
mod pki;
mod rotation;
