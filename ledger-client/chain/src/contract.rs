//! The contract's interface, as `ledger-client/contracts/Caregate.sol` has it.

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

        event ParticipantSet(address indexed participant, uint8 status, uint8 kind, bool emergency);
        event ParticipantKeySet(address indexed participant, ParticipantKey k, bytes signature);
        event Granted(bytes32 indexed relationship, Grant g, bytes signature);
        event Revoked(bytes32 indexed relationship, Revocation r, bytes signature);
        event DeviceBound(bytes32 indexed key, DeviceBinding b, bytes signature);
        event EmergencyOpened(bytes32 indexed pseudonym, address indexed domain, Emergency e, bytes signature);
        event EmergencyReviewed(bytes32 indexed pseudonym, address indexed domain, uint64 number);

        error NotRegistrar(address sender);
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
        error EmergencyTooLong(uint64 durationS);
        error EmergencyAhead(uint64 from, uint64 nowS);
        error NotThisEmergency(uint64 number, uint64 known);

        function grant(Grant calldata g, address revokeKey, bytes calldata signature) external;
        function revoke(Revocation calldata r, address otherKey, bool byRevokeKey, bytes calldata signature) external;
        function bindDevice(DeviceBinding calldata b, bytes calldata signature) external;
        function setParticipant(address participant, uint8 status, uint8 kind, bool emergency) external;
        function setParticipantKey(ParticipantKey calldata k, bytes calldata signature) external;
        function openEmergency(Emergency calldata e, bytes calldata signature) external;
        function reviewEmergency(bytes32 pseudonym, address domain, uint64 number) external;

        function epoch() external view returns (uint64);
        function registrar() external view returns (address);
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
