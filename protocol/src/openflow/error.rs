//! Error messages (§7.4.4).

use super::message::Fault;
use crate::wire::Reader;

/// Bytes of the refused message that an error carries: the standard asks for at least 64 where there are so many.
pub const QUOTED_BYTES: usize = 64;

/// `OFPET_EXPERIMENTER`.
const TYPE_EXPERIMENTER: u16 = 0xffff;

macro_rules! error_kinds {
    ($($kind:ident = $type:literal $standard:literal { $($code:ident = $number:literal $name:literal,)* })*) => {
        $(
            #[doc = concat!("Codes of `", $standard, "` (§7.4.4).")]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            #[repr(u16)]
            pub enum $kind {
                $(#[doc = $name] $code = $number,)*
            }
        )*

        /// Type and code of an error (§7.4.4).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorKind {
            $(#[doc = $standard] $kind($kind),)*
            /// `OFPET_EXPERIMENTER`
            Experimenter {
                /// The experimenter's own type.
                exp_type: u16,
                /// Who defined it.
                experimenter: u32,
            },
            /// A type or code that 1.3.5 doesn't have, kept as it came.
            Other {
                /// The number of the type, never one that has a variant together with this code.
                error_type: u16,
                /// The number of the code.
                code: u16,
            },
        }

        impl ErrorKind {
            /// Every type and code that 1.3.5 names.
            pub const NAMED: &'static [Self] = &[$($(Self::$kind($kind::$code),)*)*];

            /// The standard's name of the code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$kind($kind::$code) => $name,)*)*
                    Self::Experimenter { .. } => "OFPET_EXPERIMENTER",
                    Self::Other { .. } => "other",
                }
            }

            /// The standard's name of the type.
            #[must_use]
            pub fn type_name(self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $standard,)*
                    Self::Experimenter { .. } => "OFPET_EXPERIMENTER",
                    Self::Other { .. } => "other",
                }
            }

            /// Type and code.
            #[must_use]
            pub fn numbers(self) -> (u16, u16) {
                match self {
                    $(Self::$kind(code) => ($type, code as u16),)*
                    Self::Experimenter { exp_type, .. } => (TYPE_EXPERIMENTER, exp_type),
                    Self::Other { error_type, code } => (error_type, code),
                }
            }
        }
    };
}

error_kinds! {
    HelloFailed = 0 "OFPET_HELLO_FAILED" {
        Incompatible = 0 "OFPHFC_INCOMPATIBLE",
        Eperm = 1 "OFPHFC_EPERM",
    }
    BadRequest = 1 "OFPET_BAD_REQUEST" {
        BadVersion = 0 "OFPBRC_BAD_VERSION",
        BadType = 1 "OFPBRC_BAD_TYPE",
        BadMultipart = 2 "OFPBRC_BAD_MULTIPART",
        BadExperimenter = 3 "OFPBRC_BAD_EXPERIMENTER",
        BadExpType = 4 "OFPBRC_BAD_EXP_TYPE",
        Eperm = 5 "OFPBRC_EPERM",
        BadLen = 6 "OFPBRC_BAD_LEN",
        BufferEmpty = 7 "OFPBRC_BUFFER_EMPTY",
        BufferUnknown = 8 "OFPBRC_BUFFER_UNKNOWN",
        BadTableId = 9 "OFPBRC_BAD_TABLE_ID",
        IsSlave = 10 "OFPBRC_IS_SLAVE",
        BadPort = 11 "OFPBRC_BAD_PORT",
        BadPacket = 12 "OFPBRC_BAD_PACKET",
        MultipartBufferOverflow = 13 "OFPBRC_MULTIPART_BUFFER_OVERFLOW",
    }
    BadAction = 2 "OFPET_BAD_ACTION" {
        BadType = 0 "OFPBAC_BAD_TYPE",
        BadLen = 1 "OFPBAC_BAD_LEN",
        BadExperimenter = 2 "OFPBAC_BAD_EXPERIMENTER",
        BadExpType = 3 "OFPBAC_BAD_EXP_TYPE",
        BadOutPort = 4 "OFPBAC_BAD_OUT_PORT",
        BadArgument = 5 "OFPBAC_BAD_ARGUMENT",
        Eperm = 6 "OFPBAC_EPERM",
        TooMany = 7 "OFPBAC_TOO_MANY",
        BadQueue = 8 "OFPBAC_BAD_QUEUE",
        BadOutGroup = 9 "OFPBAC_BAD_OUT_GROUP",
        MatchInconsistent = 10 "OFPBAC_MATCH_INCONSISTENT",
        UnsupportedOrder = 11 "OFPBAC_UNSUPPORTED_ORDER",
        BadTag = 12 "OFPBAC_BAD_TAG",
        BadSetType = 13 "OFPBAC_BAD_SET_TYPE",
        BadSetLen = 14 "OFPBAC_BAD_SET_LEN",
        BadSetArgument = 15 "OFPBAC_BAD_SET_ARGUMENT",
    }
    BadInstruction = 3 "OFPET_BAD_INSTRUCTION" {
        UnknownInst = 0 "OFPBIC_UNKNOWN_INST",
        UnsupInst = 1 "OFPBIC_UNSUP_INST",
        BadTableId = 2 "OFPBIC_BAD_TABLE_ID",
        UnsupMetadata = 3 "OFPBIC_UNSUP_METADATA",
        UnsupMetadataMask = 4 "OFPBIC_UNSUP_METADATA_MASK",
        BadExperimenter = 5 "OFPBIC_BAD_EXPERIMENTER",
        BadExpType = 6 "OFPBIC_BAD_EXP_TYPE",
        BadLen = 7 "OFPBIC_BAD_LEN",
        Eperm = 8 "OFPBIC_EPERM",
    }
    BadMatch = 4 "OFPET_BAD_MATCH" {
        BadType = 0 "OFPBMC_BAD_TYPE",
        BadLen = 1 "OFPBMC_BAD_LEN",
        BadTag = 2 "OFPBMC_BAD_TAG",
        BadDlAddrMask = 3 "OFPBMC_BAD_DL_ADDR_MASK",
        BadNwAddrMask = 4 "OFPBMC_BAD_NW_ADDR_MASK",
        BadWildcards = 5 "OFPBMC_BAD_WILDCARDS",
        BadField = 6 "OFPBMC_BAD_FIELD",
        BadValue = 7 "OFPBMC_BAD_VALUE",
        BadMask = 8 "OFPBMC_BAD_MASK",
        BadPrereq = 9 "OFPBMC_BAD_PREREQ",
        DupField = 10 "OFPBMC_DUP_FIELD",
        Eperm = 11 "OFPBMC_EPERM",
    }
    FlowModFailed = 5 "OFPET_FLOW_MOD_FAILED" {
        Unknown = 0 "OFPFMFC_UNKNOWN",
        TableFull = 1 "OFPFMFC_TABLE_FULL",
        BadTableId = 2 "OFPFMFC_BAD_TABLE_ID",
        Overlap = 3 "OFPFMFC_OVERLAP",
        Eperm = 4 "OFPFMFC_EPERM",
        BadTimeout = 5 "OFPFMFC_BAD_TIMEOUT",
        BadCommand = 6 "OFPFMFC_BAD_COMMAND",
        BadFlags = 7 "OFPFMFC_BAD_FLAGS",
    }
    GroupModFailed = 6 "OFPET_GROUP_MOD_FAILED" {
        GroupExists = 0 "OFPGMFC_GROUP_EXISTS",
        InvalidGroup = 1 "OFPGMFC_INVALID_GROUP",
        WeightUnsupported = 2 "OFPGMFC_WEIGHT_UNSUPPORTED",
        OutOfGroups = 3 "OFPGMFC_OUT_OF_GROUPS",
        OutOfBuckets = 4 "OFPGMFC_OUT_OF_BUCKETS",
        ChainingUnsupported = 5 "OFPGMFC_CHAINING_UNSUPPORTED",
        WatchUnsupported = 6 "OFPGMFC_WATCH_UNSUPPORTED",
        Loop = 7 "OFPGMFC_LOOP",
        UnknownGroup = 8 "OFPGMFC_UNKNOWN_GROUP",
        ChainedGroup = 9 "OFPGMFC_CHAINED_GROUP",
        BadType = 10 "OFPGMFC_BAD_TYPE",
        BadCommand = 11 "OFPGMFC_BAD_COMMAND",
        BadBucket = 12 "OFPGMFC_BAD_BUCKET",
        BadWatch = 13 "OFPGMFC_BAD_WATCH",
        Eperm = 14 "OFPGMFC_EPERM",
    }
    PortModFailed = 7 "OFPET_PORT_MOD_FAILED" {
        BadPort = 0 "OFPPMFC_BAD_PORT",
        BadHwAddr = 1 "OFPPMFC_BAD_HW_ADDR",
        BadConfig = 2 "OFPPMFC_BAD_CONFIG",
        BadAdvertise = 3 "OFPPMFC_BAD_ADVERTISE",
        Eperm = 4 "OFPPMFC_EPERM",
    }
    TableModFailed = 8 "OFPET_TABLE_MOD_FAILED" {
        BadTable = 0 "OFPTMFC_BAD_TABLE",
        BadConfig = 1 "OFPTMFC_BAD_CONFIG",
        Eperm = 2 "OFPTMFC_EPERM",
    }
    QueueOpFailed = 9 "OFPET_QUEUE_OP_FAILED" {
        BadPort = 0 "OFPQOFC_BAD_PORT",
        BadQueue = 1 "OFPQOFC_BAD_QUEUE",
        Eperm = 2 "OFPQOFC_EPERM",
    }
    SwitchConfigFailed = 10 "OFPET_SWITCH_CONFIG_FAILED" {
        BadFlags = 0 "OFPSCFC_BAD_FLAGS",
        BadLen = 1 "OFPSCFC_BAD_LEN",
        Eperm = 2 "OFPSCFC_EPERM",
    }
    RoleRequestFailed = 11 "OFPET_ROLE_REQUEST_FAILED" {
        Stale = 0 "OFPRRFC_STALE",
        Unsup = 1 "OFPRRFC_UNSUP",
        BadRole = 2 "OFPRRFC_BAD_ROLE",
    }
    MeterModFailed = 12 "OFPET_METER_MOD_FAILED" {
        Unknown = 0 "OFPMMFC_UNKNOWN",
        MeterExists = 1 "OFPMMFC_METER_EXISTS",
        InvalidMeter = 2 "OFPMMFC_INVALID_METER",
        UnknownMeter = 3 "OFPMMFC_UNKNOWN_METER",
        BadCommand = 4 "OFPMMFC_BAD_COMMAND",
        BadFlags = 5 "OFPMMFC_BAD_FLAGS",
        BadRate = 6 "OFPMMFC_BAD_RATE",
        BadBurst = 7 "OFPMMFC_BAD_BURST",
        BadBand = 8 "OFPMMFC_BAD_BAND",
        BadBandValue = 9 "OFPMMFC_BAD_BAND_VALUE",
        OutOfMeters = 10 "OFPMMFC_OUT_OF_METERS",
        OutOfBands = 11 "OFPMMFC_OUT_OF_BANDS",
    }
    TableFeaturesFailed = 13 "OFPET_TABLE_FEATURES_FAILED" {
        BadTable = 0 "OFPTFFC_BAD_TABLE",
        BadMetadata = 1 "OFPTFFC_BAD_METADATA",
        BadType = 2 "OFPTFFC_BAD_TYPE",
        BadLen = 3 "OFPTFFC_BAD_LEN",
        BadArgument = 4 "OFPTFFC_BAD_ARGUMENT",
        Eperm = 5 "OFPTFFC_EPERM",
    }
}

impl ErrorKind {
    fn of(error_type: u16, code: u16) -> Self {
        let named = Self::NAMED.iter().copied().find(|kind| kind.numbers() == (error_type, code));
        named.unwrap_or(Self::Other { error_type, code })
    }
}

/// `struct ofp_error_msg` (§7.4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorMessage {
    /// Type and code.
    pub kind: ErrorKind,
    /// The beginning of the message that failed; for `OFPET_HELLO_FAILED` a text.
    pub data: Vec<u8>,
}

impl ErrorMessage {
    /// An error of this kind about the message in `frame`, quoting its first 64 bytes.
    #[must_use]
    pub fn about(kind: ErrorKind, frame: &[u8]) -> Self {
        Self { kind, data: frame[..frame.len().min(QUOTED_BYTES)].to_vec() }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (error_type, code) = self.kind.numbers();
        out.extend(error_type.to_be_bytes());
        out.extend(code.to_be_bytes());
        if let ErrorKind::Experimenter { experimenter, .. } = self.kind {
            out.extend(experimenter.to_be_bytes());
        }
        out.extend(&self.data);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let error_type = reader.u16("error type")?;
        let code = reader.u16("error code")?;
        let kind = if error_type == TYPE_EXPERIMENTER {
            ErrorKind::Experimenter { exp_type: code, experimenter: reader.u32("experimenter")? }
        } else {
            ErrorKind::of(error_type, code)
        };
        Ok(Self { kind, data: reader.rest().to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_named_code_has_numbers_of_its_own() {
        for kind in ErrorKind::NAMED {
            let (error_type, code) = kind.numbers();
            assert_eq!(ErrorKind::of(error_type, code), *kind, "{}", kind.as_str());
        }
        assert_eq!(ErrorKind::of(1, 14), ErrorKind::Other { error_type: 1, code: 14 });
        assert_eq!(ErrorKind::of(14, 0), ErrorKind::Other { error_type: 14, code: 0 });
    }

    #[test]
    fn quotes_sixty_four_bytes() {
        let kind = ErrorKind::BadRequest(BadRequest::BadLen);
        assert_eq!(ErrorMessage::about(kind, &[7; 200]).data, [7; 64]);
        assert_eq!(ErrorMessage::about(kind, &[7; 9]).data, [7; 9]);
    }
}
