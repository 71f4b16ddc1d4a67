//! SPIFFE ids (SPIFFE-ID §2, X.509-SVID §2) in the one shape that this deployment issues.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;

use super::error::IdentityError;

/// Longest trust domain: SPIFFE-ID §2.1 caps it at 255 bytes.
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Longest name: as long as a device id, because a sensor's name is its device id.
pub const PEER_NAME_BYTES_MAX: usize = caregate_protocol::id::NAME_BYTES_MAX;

/// What a certificate's holder is in the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An edge gateway.
    Gateway,
    /// The core.
    Core,
    /// A clinician feed.
    Feed,
    /// An SDN controller.
    Controller,
    /// A body sensor or hub.
    Sensor,
    /// A person or a tool that speaks the controller's REST interface.
    Operator,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Gateway, Self::Core, Self::Feed, Self::Controller, Self::Sensor, Self::Operator];

    /// As in the SPIFFE id.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Core => "core",
            Self::Feed => "feed",
            Self::Controller => "controller",
            Self::Sensor => "sensor",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(s: &str) -> Result<Self, IdentityError> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == s);
        role.ok_or(IdentityError::Spiffe(
            "the role is none of gateway, core, feed, controller, sensor, operator",
        ))
    }
}

/// Who a peer is: its role and its name in that role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// What it is.
    pub role: Role,
    /// Which one: 1 to [`PEER_NAME_BYTES_MAX`] bytes of `A-Z a-z 0-9 . _ -`.
    pub name: String,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

/// `spiffe://<domain>/<role>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    domain: String,
    peer: PeerId,
}

impl SpiffeId {
    /// Puts an id together, checking each part.
    ///
    /// # Errors
    /// [`IdentityError::Spiffe`] for a character or length that SPIFFE does not allow.
    pub fn new(domain: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if domain.is_empty() || domain.len() > DOMAIN_BYTES_MAX || !domain.bytes().all(lower) {
            return Err(IdentityError::Spiffe("the domain must be 1 to 255 of a-z 0-9 . _ -"));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_empty() || name.len() > PEER_NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(IdentityError::Spiffe("the name must be 1 to 64 of A-Z a-z 0-9 . _ -"));
        }
        if name == "." || name == ".." {
            return Err(IdentityError::Spiffe("the name must not be . or .."));
        }
        Ok(Self { domain: domain.to_owned(), peer: PeerId { role, name: name.to_owned() } })
    }

    /// The deployment.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Role and name.
    #[must_use]
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// From the single URI SAN of an end-entity certificate. The chain is not checked here.
    ///
    /// # Errors
    /// When the bytes are no certificate, or it has none, several, or another kind of URI name.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| IdentityError::Encoding(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| IdentityError::Encoding(error.to_string()))?
            .map_or([].as_slice(), |extension| &extension.value.general_names);
        let mut uris = Vec::new();
        for name in names {
            if let GeneralName::URI(uri) = name {
                uris.push(*uri);
            }
        }
        match uris.as_slice() {
            [uri] => uri.parse(),
            other => Err(IdentityError::UriNames(other.len())),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.domain, self.peer)
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(s: &str) -> Result<Self, IdentityError> {
        let rest = s.strip_prefix("spiffe://").ok_or(IdentityError::Spiffe("the scheme is not spiffe"))?;
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(domain), Some(role), Some(name), None) => Self::new(domain, role.parse()?, name),
            (Some(_) | None, _, _, _) => Err(IdentityError::Spiffe("the path does not have two parts")),
        }
    }
}

/// Role and name of a peer whose handshake has succeeded, from its end-entity certificate (`certs[0]`).
///
/// # Errors
/// As [`SpiffeId::from_certificate`]; [`IdentityError::NoCertificate`] for an empty list.
pub fn peer_id(certs: &[CertificateDer<'_>]) -> Result<PeerId, IdentityError> {
    let certificate = certs.first().ok_or(IdentityError::NoCertificate)?;
    SpiffeId::from_certificate(certificate).map(|id| id.peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for role in Role::ALL {
            let text = format!("spiffe://home.example/{role}/Gw-1.a_b");
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!(
                (id.domain(), id.peer().role, id.peer().name.as_str()),
                ("home.example", role, "Gw-1.a_b")
            );
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let long_name = format!("spiffe://d/core/{}", "a".repeat(PEER_NAME_BYTES_MAX + 1));
        let long_domain = format!("spiffe://{}/core/a", "d".repeat(DOMAIN_BYTES_MAX + 1));
        for text in [
            "",
            "spiffe://",
            "https://d/core/a",
            "SPIFFE://d/core/a",
            "spiffe://d",
            "spiffe://d/core",
            "spiffe://d/core/",
            "spiffe:///core/a",
            "spiffe://d/core/a/",
            "spiffe://d/core/a/b",
            "spiffe://d/Core/a",
            "spiffe://d/root/a",
            "spiffe://D/core/a",
            "spiffe://d:1/core/a",
            "spiffe://u@d/core/a",
            "spiffe://d/core/a?b",
            "spiffe://d/core/a#b",
            "spiffe://d/core/%61",
            "spiffe://d/core/..",
            "spiffe://d/core/.",
            "spiffe://d/core/a b",
            "spiffe://d/core/é",
            &long_name,
            &long_domain,
        ] {
            assert!(matches!(text.parse::<SpiffeId>(), Err(IdentityError::Spiffe(_))), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate() {
        assert!(matches!(peer_id(&[]), Err(IdentityError::NoCertificate)));
        let junk = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert!(matches!(peer_id(&[junk]), Err(IdentityError::Encoding(_))));
    }

    proptest::proptest! {
        /// One id has one text: nothing is normalised, so comparing ids is comparing what was signed.
        #[test]
        fn what_is_accepted_is_written_the_same(text in "spiffe://[a-zA-Z0-9._%:@-]{0,9}/(gateway|core|feed|controller|sensor|operator|Core|)/[a-zA-Z0-9._/%?#:-]{0,9}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                proptest::prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
