// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What the contract stores, what is signed for it, what it tells and why it refuses.
/// @dev Structs that are stored are packed from the lowest byte on, in the order of their fields: part of the interface, see
/// `CaregateStorage`. Structs that are signed are EIP-712 types of the same name.
interface ICaregate {
    // ----------------------------------------------------------------------------------------------- stored

    /// @dev A domain that takes part. Word 0: hpkeKey. Word 1: the rest.
    struct Participant {
        bytes32 hpkeKey; // X25519; zero until the participant has set one
        uint64 keyVersion; // rises with each key; 0 for none
        uint8 status; // 0 unknown, 1 active, 2 suspended
        uint8 kind; // 0 other, 1 treating
        bool emergency; // may break the glass
    }

    /// @dev One relationship's consent. Word 0: grantee, classes, purposes, staleBoundS; word 1: from, until, version, revoked.
    struct Consent {
        address grantee; // who may open
        uint32 classes; // bit for each data class
        uint32 purposes; // bit for each purpose
        uint32 staleBoundS; // seconds that it may go on where the policy can't be refreshed
        uint64 from; // first second, Unix time
        uint64 until; // first second at which it holds no more
        uint64 version; // of the newest grant; 0 for none
        uint64 revoked; // highest version that is revoked; 0 for none
    }

    /// @dev A device's binding to one home. One word.
    struct Binding {
        uint64 version; // rises with each change; 0 for none
        bool bound;
    }

    /// @dev A domain's newest emergency access to one pseudonym. Word 2: from, until, number, reviewed.
    struct EmergencyAccess {
        bytes32 clinician; // salted commitment, never zero
        bytes32 reason; // salted commitment, never zero
        uint64 from; // first second, Unix time
        uint64 until; // first second at which it holds no more
        uint64 number; // rises with each emergency; 0 for none
        bool reviewed; // somebody looked at it; says nothing about whether it holds
    }

    /// @dev A relationship's keys since they were rotated; before, its name says which they are. Word 0: grantKey, version.
    struct RelationshipKeys {
        address grantKey; // may grant and revoke
        uint64 version; // rises by one with each rotation; 0 for none
        address revokeKey; // may revoke
    }

    /// @dev Who may recover a relationship, as a salted commitment, so that nobody learns who they are before they act.
    struct CustodianSet {
        bytes32 commitment; // of `Custodians`; zero for nobody
        uint64 version; // rises with each change; 0 for none
    }

    /// @dev A recovery that waits.
    struct PendingRecovery {
        bytes32 digest; // of `KeyRecovery`
        uint64 readyAt; // Unix time
        uint64 custodyVersion; // of the custodians who signed
    }

    /// @dev How far a log is anchored. Word 1: last, anchors.
    struct AuditLog {
        bytes32 root; // of the newest batch
        uint64 last; // the newest entry's sequence number; entries are numbered from 1
        uint64 anchors; // how many batches
    }

    /// @dev A governed change on its way.
    struct PendingChange {
        uint16 approvals; // bit for each governor's seat
        uint16 objections; // bit for each governor's seat
        uint64 readyAt; // Unix time from which it may be applied; 0 while approvals are missing
        bool closed; // applied, or stopped
    }

    /// @dev Who governs, and how.
    struct Council {
        uint64 version; // rises by one with each change
        uint64 delayS; // seconds between the last approval and the change
        uint8 threshold; // approvals that a change needs
    }

    // ----------------------------------------------------------------------------------------------- signed

    /// @notice The patient's word that `grantee` may open; signed by the relationship's grant key.
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

    /// @notice The patient's word that no grant up to and including `version` holds; signed by the grant key or the revoke-only key.
    struct Revocation {
        bytes32 relationship;
        uint64 version;
    }

    /// @notice The patient's word that other keys take the place of a relationship's; signed by its grant key.
    struct KeyRotation {
        bytes32 relationship;
        address grantKey;
        address revokeKey;
        uint64 version;
    }

    /// @notice The patient's word on who may recover a relationship; signed by its grant key.
    struct Custody {
        bytes32 relationship;
        bytes32 custodians;
        uint64 version;
    }

    /// @notice The custodians' word that other keys take the place of lost ones; signed by `Custodians.threshold` of them.
    struct KeyRecovery {
        bytes32 relationship;
        address grantKey;
        address revokeKey;
        uint64 version;
    }

    /// @notice Opens `CustodianSet.commitment`. Not signed.
    struct Custodians {
        uint8 threshold; // signatures that a recovery needs
        uint64 delayS; // seconds in which the grant key can stop it
        bytes32 salt;
        address[] keys; // rising, each for this relationship alone
    }

    /// @notice The patient's word that a device is theirs, or is no more; signed by the home key.
    struct DeviceBinding {
        bytes32 commitment;
        bool bound;
        uint64 version;
    }

    /// @notice A participant's own HPKE key; signed by the participant's address.
    struct ParticipantKey {
        address participant;
        bytes32 hpkeKey;
        uint64 version;
    }

    /// @notice A domain breaks the glass for a pseudonym; signed by the domain's address.
    struct Emergency {
        bytes32 pseudonym;
        address domain;
        bytes32 clinician;
        bytes32 reason;
        uint64 from;
        uint64 until;
        uint64 number;
    }

    /// @notice Somebody looked at an emergency; signed by a governor.
    struct EmergencyReview {
        bytes32 pseudonym;
        address domain;
        uint64 number;
    }

    /// @notice A batch of an audit log's entries, `first` to `last`, and its Merkle root; signed by the log's key.
    struct Anchor {
        address log;
        uint64 first;
        uint64 last;
        bytes32 root;
    }

    /// @notice Who takes part and as what; signed by governors.
    struct ParticipantChange {
        address participant;
        uint8 status;
        uint8 kind;
        bool emergency;
        uint64 version;
    }

    /// @notice Who governs from now on, and how; signed by governors.
    struct CouncilChange {
        address[] governors;
        uint8 threshold;
        uint64 delayS;
        uint64 version;
    }

    /// @notice A governor's word against a change; signed by the governor.
    struct Objection {
        bytes32 change;
    }

    // ----------------------------------------------------------------------------------------------- events

    /// @notice The governors changed a participant.
    event ParticipantSet(address indexed participant, uint8 status, uint8 kind, bool emergency);
    /// @notice A participant changed its HPKE key.
    event ParticipantKeySet(address indexed participant, ParticipantKey k, bytes signature);
    /// @notice A patient granted.
    event Granted(bytes32 indexed relationship, Grant g, bytes signature);
    /// @notice A patient revoked.
    event Revoked(bytes32 indexed relationship, Revocation r, bytes signature);
    /// @notice A patient gave a relationship other keys.
    event KeysRotated(bytes32 indexed relationship, KeyRotation r, bytes signature);
    /// @notice A patient said who may recover a relationship.
    event CustodiansSet(bytes32 indexed relationship, Custody c, bytes signature);
    /// @notice Custodians ask for other keys, from `readyAt` on. Signatures are in the order of the keys, empty where one is missing.
    event RecoveryBegun(
        bytes32 indexed relationship, KeyRecovery r, Custodians custodians, bytes[] signatures, uint64 readyAt
    );
    /// @notice A relationship has the keys that its custodians asked for.
    event KeysRecovered(bytes32 indexed relationship, KeyRecovery r);
    /// @notice A patient bound or released a device; `key` is its `bindingKey`.
    event DeviceBound(bytes32 indexed key, DeviceBinding b, bytes signature);
    /// @notice A domain broke the glass.
    event EmergencyOpened(bytes32 indexed pseudonym, address indexed domain, Emergency e, bytes signature);
    /// @notice A governor noted that an emergency was reviewed.
    event EmergencyReviewed(bytes32 indexed pseudonym, address indexed domain, uint64 number);
    /// @notice A log's next batch is anchored.
    event Anchored(address indexed log, Anchor a, bytes signature);
    /// @notice A governor is for a change, which is its EIP-712 digest; `readyAt` is 0 while approvals are missing.
    event ChangeApproved(bytes32 indexed change, address indexed governor, uint64 readyAt);
    /// @notice A governor is against a change; `stopped` when so many are that it can't come any more.
    event ChangeOpposed(bytes32 indexed change, address indexed governor, bool stopped);
    /// @notice Who governs has changed.
    event CouncilSet(address[] governors, uint8 threshold, uint64 delayS, uint64 version);

    // ----------------------------------------------------------------------------------------------- errors

    /// @notice The zero address stands for nobody.
    error ZeroAddress();
    /// @notice A status other than 0, 1 and 2.
    error UnknownStatus(uint8 status);
    /// @notice A kind other than 0 and 1.
    error UnknownKind(uint8 kind);
    /// @notice A signature has 65 bytes: r, s, v.
    error SignatureLength(uint256 length);
    /// @notice v is 27 or 28.
    error SignatureV(uint8 v);
    /// @notice s is in the lower half of the group order (EIP-2), so that no signature has a second spelling.
    error SignatureHighS();
    /// @notice No public key fits the signature.
    error SignatureInvalid();
    /// @notice Signed by somebody else, for another chain or contract, or changed after it was signed.
    error WrongSigner(address recovered);
    /// @notice Versions begin at 1 and rise: `known` is the one to exceed.
    error VersionNotRaised(uint64 version, uint64 known);
    /// @notice Not the version that comes next: what is there was changed meanwhile.
    error VersionNotNext(uint64 version, uint64 known);
    /// @notice This version of the grant is revoked already.
    error VersionRevoked(uint64 version, uint64 revoked);
    /// @notice A grant of no class or no purpose.
    error EmptyGrant();
    /// @notice `until` is not after `from`.
    error TimesReversed(uint64 from, uint64 until);
    /// @notice Longer than `GRANT_MAX_S`: every grant ends.
    error GrantTooLong(uint64 durationS);
    /// @notice A key of zeroes.
    error ZeroKey();
    /// @notice One key for both purposes.
    error SameKey(address key);
    /// @notice The domain is not registered, not active or not for emergencies.
    error NotEmergencyParticipant(address domain);
    /// @notice Names no clinician or gives no reason: the commitment is zero.
    error EmergencyUnnamed();
    /// @notice Longer than `EMERGENCY_MAX_S`.
    error EmergencyTooLong(uint64 durationS);
    /// @notice Begins later than `EMERGENCY_AHEAD_MAX_S` from now.
    error EmergencyAhead(uint64 from, uint64 nowS);
    /// @notice Of this domain and pseudonym there is no emergency of that number yet.
    error NotThisEmergency(uint64 number, uint64 known);
    /// @notice Whom the patient named is not who these are.
    error NotTheCustodians(bytes32 commitment, bytes32 known);
    /// @notice Custodians are one to `CUSTODIANS_MAX`, rising, with a threshold among them and a delay up to `DELAY_MAX_S`.
    error CustodiansMalformed();
    /// @notice Fewer signatures than a recovery needs.
    error TooFewSignatures(uint256 count, uint256 needed);
    /// @notice This recovery waits already; to send it again does not delay it.
    error RecoveryWaits(uint64 readyAt);
    /// @notice There is no such recovery, or the patient has stopped it.
    error NoSuchRecovery();
    /// @notice It may be done from `readyAt` on; 0 where approvals are missing.
    error TooEarly(uint64 readyAt);
    /// @notice Entries are anchored one after the other: `next` is the first one's number.
    error NotNextEntry(uint64 first, uint64 next);
    /// @notice Only a governor may do this.
    error NotGovernor(address who);
    /// @notice This governor has said so already.
    error SaidAlready(address governor);
    /// @notice The change was applied, or was stopped.
    error ChangeClosed(bytes32 change);
    /// @notice Governors are one to `GOVERNORS_MAX`, distinct, with a threshold among them and a delay up to `DELAY_MAX_S`.
    error CouncilMalformed();
}
