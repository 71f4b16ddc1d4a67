//! The contract's interface, as `ledger-client/contracts/src` has it.

use alloy::sol;

sol! {
    #![sol(all_derives)]
    interface Caregate {
        struct Grant {
            bytes32 relationship;
            address grantee;
            uint32 classes;
            uint32 purposes;
            uint64 from;
            uint64 until;
            uint32 staleBoundS;
            uint64 version;
        }
        struct Revocation {
            bytes32 relationship;
            uint64 version;
        }
        struct DeviceBinding {
            bytes32 commitment;
            bool bound;
            uint64 version;
        }
        struct ParticipantKey {
            address participant;
            bytes32 hpkeKey;
            uint64 version;
        }
        struct Emergency {
            bytes32 pseudonym;
            address domain;
            bytes32 clinician;
            bytes32 reason;
            uint64 from;
            uint64 until;
            uint64 number;
        }

        struct EmergencyReview {
            bytes32 pseudonym;
            address domain;
            uint64 number;
        }
        struct Anchor {
            address log;
            uint64 first;
            uint64 last;
            bytes32 root;
        }
        struct ParticipantChange {
            address participant;
            uint8 status;
            uint8 kind;
            bool emergency;
            uint64 version;
        }
        struct CouncilChange {
            address[] governors;
            uint8 threshold;
            uint64 delayS;
            uint64 version;
        }
        struct Objection {
            bytes32 change;
        }
        struct KeyRotation {
            bytes32 relationship;
            address grantKey;
            address revokeKey;
            uint64 version;
        }
        struct Custody {
            bytes32 relationship;
            bytes32 custodians;
            uint64 version;
        }
        struct KeyRecovery {
            bytes32 relationship;
            address grantKey;
            address revokeKey;
            uint64 version;
        }
        struct Custodians {
            uint8 threshold;
            uint64 delayS;
            bytes32 salt;
            address[] keys;
        }

        event ParticipantSet(address indexed participant, uint8 status, uint8 kind, bool emergency);
        event ParticipantKeySet(address indexed participant, ParticipantKey k, bytes signature);
        event Granted(bytes32 indexed relationship, Grant g, bytes signature);
        event Revoked(bytes32 indexed relationship, Revocation r, bytes signature);
        event DeviceBound(bytes32 indexed key, DeviceBinding b, bytes signature);
        event EmergencyOpened(bytes32 indexed pseudonym, address indexed domain, Emergency e, bytes signature);
        event EmergencyReviewed(bytes32 indexed pseudonym, address indexed domain, uint64 number);

        event KeysRotated(bytes32 indexed relationship, KeyRotation r, bytes signature);
        event CustodiansSet(bytes32 indexed relationship, Custody c, bytes signature);
        event RecoveryBegun(
            bytes32 indexed relationship, KeyRecovery r, Custodians custodians, bytes[] signatures, uint64 readyAt
        );
        event KeysRecovered(bytes32 indexed relationship, KeyRecovery r);
        event Anchored(address indexed log, Anchor a, bytes signature);
        event ChangeApproved(bytes32 indexed change, address indexed governor, uint64 readyAt);
        event ChangeOpposed(bytes32 indexed change, address indexed governor, bool stopped);
        event CouncilSet(address[] governors, uint8 threshold, uint64 delayS, uint64 version);

        error ZeroAddress();
        error UnknownStatus(uint8 status);
        error UnknownKind(uint8 kind);
        error SignatureLength(uint256 length);
        error SignatureV(uint8 v);
        error SignatureHighS();
        error SignatureInvalid();
        error WrongSigner(address recovered);
        error VersionNotRaised(uint64 version, uint64 known);
        error VersionRevoked(uint64 version, uint64 revoked);
        error EmptyGrant();
        error TimesReversed(uint64 from, uint64 until);
        error ZeroKey();
        error NotEmergencyParticipant(address domain);
        error EmergencyUnnamed();
        error EmergencyTooLong(uint64 durationS);
        error EmergencyAhead(uint64 from, uint64 nowS);
        error NotThisEmergency(uint64 number, uint64 known);
        error VersionNotNext(uint64 version, uint64 known);
        error GrantTooLong(uint64 durationS);
        error SameKey(address key);
        error NotTheCustodians(bytes32 commitment, bytes32 known);
        error CustodiansMalformed();
        error TooFewSignatures(uint256 count, uint256 needed);
        error RecoveryWaits(uint64 readyAt);
        error NoSuchRecovery();
        error TooEarly(uint64 readyAt);
        error NotNextEntry(uint64 first, uint64 next);
        error NotGovernor(address who);
        error SaidAlready(address governor);
        error ChangeClosed(bytes32 change);
        error CouncilMalformed();

        function grant(Grant calldata g, address revokeKey, bytes calldata signature) external;
        function revoke(Revocation calldata r, address otherKey, bool byRevokeKey, bytes calldata signature) external;
        function bindDevice(DeviceBinding calldata b, bytes calldata signature) external;
        function approveParticipant(ParticipantChange calldata c, bytes calldata signature) external;
        function applyParticipant(ParticipantChange calldata c) external;
        function approveCouncil(CouncilChange calldata c, bytes calldata signature) external;
        function applyCouncil(CouncilChange calldata c) external;
        function oppose(Objection calldata o, bytes calldata signature) external;
        function rotateKeys(KeyRotation calldata r, address revokeKey, bytes calldata signature) external;
        function setCustodians(Custody calldata c, address revokeKey, bytes calldata signature) external;
        function recoverKeys(KeyRecovery calldata r, Custodians calldata custodians, bytes[] calldata signatures) external;
        function completeRecovery(KeyRecovery calldata r) external;
        function anchor(Anchor calldata a, bytes calldata signature) external;
        function setParticipantKey(ParticipantKey calldata k, bytes calldata signature) external;
        function openEmergency(Emergency calldata e, bytes calldata signature) external;
        function reviewEmergency(EmergencyReview calldata r, bytes calldata signature) external;

        function epoch() external view returns (uint64);
        function governors() external view returns (address[] memory);
        function council() external view returns (uint64 version, uint64 delayS, uint8 threshold);
        function participantVersions(address) external view returns (uint64);
        function changeKey(bytes32 change) external view returns (bytes32);
        function pendingChanges(bytes32) external view
            returns (uint16 approvals, uint16 objections, uint64 readyAt, bool closed);
        function relationshipKeys(bytes32) external view
            returns (address grantKey, uint64 version, address revokeKey);
        function custodianSets(bytes32) external view returns (bytes32 commitment, uint64 version);
        function pendingRecoveries(bytes32) external view
            returns (bytes32 digest, uint64 readyAt, uint64 custodyVersion);
        function auditLogs(address) external view returns (bytes32 root, uint64 last, uint64 anchors);
        function participants(address) external view
            returns (bytes32 hpkeKey, uint64 keyVersion, uint8 status, uint8 kind, bool emergency);
        function consents(bytes32) external view
            returns (address grantee, uint32 classes, uint32 purposes, uint32 staleBoundS,
                     uint64 from, uint64 until, uint64 version, uint64 revoked);
        function bindings(bytes32) external view returns (uint64 version, bool bound);
        function emergencies(bytes32) external view
            returns (bytes32 clinician, bytes32 reason, uint64 from, uint64 until, uint64 number, bool reviewed);
    }
}
