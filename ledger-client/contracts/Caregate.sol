// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Who may open a patient's readings, which devices are whose, and who takes part.
/// @notice Patients grant and revoke, participants set their keys and break the glass, each by a signed EIP-712 message that anybody
/// may relay. Nobody else can: the registrar says who takes part, and no more. There is no owner, no proxy and no way to stop it.
/// @dev The storage layout is an interface (docs/control-path.md, "The ledger"): gateways hold each value against a storage proof.
/// A change of a struct's order or of a variable's slot breaks every verifier; `node/tests/slots.rs` holds both against each other.
///
/// No value here names a person. Relationships, home keys, commitments and pseudonyms are random or hashes of random values.
contract Caregate {
    // ---------------------------------------------------------------------------------------------- storage

    /// @notice Rises with each change of anything below.
    uint64 public epoch; // slot 0

    /// @dev A domain that takes part. Word 0: hpkeKey. Word 1, from the lowest byte: the rest, in this order.
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

    /// @dev A domain's newest emergency access to one pseudonym. Word 2, from the lowest byte: from, until, number, reviewed.
    struct EmergencyAccess {
        bytes32 clinician; // salted commitment
        bytes32 reason; // salted commitment
        uint64 from; // first second, Unix time
        uint64 until; // first second at which it holds no more
        uint64 number; // rises with each emergency; 0 for none
        bool reviewed; // somebody looked at it; says nothing about whether it holds
    }

    /// @notice Who takes part, by address.
    mapping(address => Participant) public participants; // slot 1

    /// @notice What patients grant, by relationship.
    mapping(bytes32 => Consent) public consents; // slot 2

    /// @notice Which devices are bound, by `bindingKey`.
    mapping(bytes32 => Binding) public bindings; // slot 3

    /// @notice Emergency access, by `emergencyKey`.
    mapping(bytes32 => EmergencyAccess) public emergencies; // slot 4

    // --------------------------------------------------------------------------------------------- messages

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

    // ----------------------------------------------------------------------------------------------- events

    /// @notice The registrar changed a participant.
    event ParticipantSet(address indexed participant, uint8 status, uint8 kind, bool emergency);
    /// @notice A participant changed its HPKE key.
    event ParticipantKeySet(address indexed participant, ParticipantKey k, bytes signature);
    /// @notice A patient granted.
    event Granted(bytes32 indexed relationship, Grant g, bytes signature);
    /// @notice A patient revoked.
    event Revoked(bytes32 indexed relationship, Revocation r, bytes signature);
    /// @notice A patient bound or released a device; `key` is its `bindingKey`.
    event DeviceBound(bytes32 indexed key, DeviceBinding b, bytes signature);
    /// @notice A domain broke the glass.
    event EmergencyOpened(bytes32 indexed pseudonym, address indexed domain, Emergency e, bytes signature);
    /// @notice The registrar noted that an emergency was reviewed.
    event EmergencyReviewed(bytes32 indexed pseudonym, address indexed domain, uint64 number);

    // ----------------------------------------------------------------------------------------------- errors

    /// @notice Only the registrar may do this.
    error NotRegistrar(address sender);
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
    /// @notice This version of the grant is revoked already.
    error VersionRevoked(uint64 version, uint64 revoked);
    /// @notice A grant of no class or no purpose.
    error EmptyGrant();
    /// @notice `until` is not after `from`.
    error TimesReversed(uint64 from, uint64 until);
    /// @notice A key of zeroes.
    error ZeroKey();
    /// @notice The domain is not registered, not active or not for emergencies.
    error NotEmergencyParticipant(address domain);
    /// @notice Longer than `EMERGENCY_MAX_S`.
    error EmergencyTooLong(uint64 durationS);
    /// @notice Begins later than `EMERGENCY_AHEAD_MAX_S` from now.
    error EmergencyAhead(uint64 from, uint64 nowS);
    /// @notice There is another emergency of this domain and pseudonym, or none.
    error NotThisEmergency(uint64 number, uint64 known);

    // -------------------------------------------------------------------------------------------- constants

    /// @notice Longest emergency: a shift's half, after which it has to be declared anew.
    uint64 public constant EMERGENCY_MAX_S = 4 hours;
    /// @notice How far ahead an emergency may begin: the difference of two clocks, not a stock for later.
    uint64 public constant EMERGENCY_AHEAD_MAX_S = 5 minutes;

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant GRANT_TYPE = keccak256(
        "Grant(bytes32 relationship,address grantee,uint32 classes,uint32 purposes,uint64 from,uint64 until,uint32 staleBoundS,uint64 version)"
    );
    bytes32 private constant REVOCATION_TYPE = keccak256("Revocation(bytes32 relationship,uint64 version)");
    bytes32 private constant BINDING_TYPE = keccak256("DeviceBinding(bytes32 commitment,bool bound,uint64 version)");
    bytes32 private constant KEY_TYPE = keccak256("ParticipantKey(address participant,bytes32 hpkeKey,uint64 version)");
    bytes32 private constant EMERGENCY_TYPE = keccak256(
        "Emergency(bytes32 pseudonym,address domain,bytes32 clinician,bytes32 reason,uint64 from,uint64 until,uint64 number)"
    );
    /// @dev Half of secp256k1's group order (EIP-2).
    uint256 private constant S_MAX = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint8 private constant ACTIVE = 1;
    uint8 private constant STATUS_MAX = 2;
    uint8 private constant KIND_MAX = 1;

    /// @notice Says who takes part. Immutable: one address in this release.
    address public immutable registrar;
    uint256 private immutable deployedChainId;
    bytes32 private immutable deployedSeparator;

    /// @param registrar_ who says who takes part
    constructor(address registrar_) {
        require(registrar_ != address(0), ZeroAddress());
        registrar = registrar_;
        deployedChainId = block.chainid;
        deployedSeparator = separator();
    }

    // ------------------------------------------------------------------------------------------ participants

    /// @notice Lets a domain take part, suspends it, or changes what it is. By the registrar alone, which can't set its key.
    /// @param participant the domain's address
    /// @param status 0 unknown, 1 active, 2 suspended
    /// @param kind 0 other, 1 treating
    /// @param emergency whether it may break the glass
    function setParticipant(address participant, uint8 status, uint8 kind, bool emergency) external {
        require(msg.sender == registrar, NotRegistrar(msg.sender));
        require(participant != address(0), ZeroAddress());
        require(status <= STATUS_MAX, UnknownStatus(status));
        require(kind <= KIND_MAX, UnknownKind(kind));
        Participant storage known = participants[participant];
        known.status = status;
        known.kind = kind;
        known.emergency = emergency;
        epoch++;
        emit ParticipantSet(participant, status, kind, emergency);
    }

    /// @notice Sets a participant's HPKE key. Whether and as what it takes part is the registrar's word, before or after.
    function setParticipantKey(ParticipantKey calldata k, bytes calldata signature) external {
        address recovered = signer(participantKeyDigest(k), signature);
        require(recovered == k.participant, WrongSigner(recovered));
        require(k.hpkeKey != 0, ZeroKey());
        Participant storage known = participants[k.participant];
        require(k.version > known.keyVersion, VersionNotRaised(k.version, known.keyVersion));
        known.hpkeKey = k.hpkeKey;
        known.keyVersion = k.version;
        epoch++;
        emit ParticipantKeySet(k.participant, k, signature);
    }

    // ----------------------------------------------------------------------------------------------- consent

    /// @notice Grants. The grantee needs no registration: whether it takes part is asked where access is given.
    /// @param g what the patient signed
    /// @param revokeKey the relationship's revoke-only key, of which `g.relationship` is made together with the signer
    /// @param signature by the grant key
    function grant(Grant calldata g, address revokeKey, bytes calldata signature) external {
        address recovered = signer(grantDigest(g), signature);
        require(relationshipOf(recovered, revokeKey) == g.relationship, WrongSigner(recovered));
        require(g.grantee != address(0), ZeroAddress());
        require(g.classes != 0 && g.purposes != 0, EmptyGrant());
        require(g.from < g.until, TimesReversed(g.from, g.until));
        Consent storage known = consents[g.relationship];
        require(g.version > known.version, VersionNotRaised(g.version, known.version));
        require(g.version > known.revoked, VersionRevoked(g.version, known.revoked));
        known.grantee = g.grantee;
        known.classes = g.classes;
        known.purposes = g.purposes;
        known.staleBoundS = g.staleBoundS;
        known.from = g.from;
        known.until = g.until;
        known.version = g.version;
        epoch++;
        emit Granted(g.relationship, g, signature);
    }

    /// @notice Revokes all grants up to and including `r.version`, also of versions that were never granted. A second time, or of a
    /// version below one that is revoked, it changes nothing and does not fail.
    /// @param r what the patient signed
    /// @param otherKey the relationship's key that did not sign
    /// @param byRevokeKey whether the revoke-only key signed, and not the grant key
    /// @param signature by one of the two
    function revoke(Revocation calldata r, address otherKey, bool byRevokeKey, bytes calldata signature) external {
        address recovered = signer(revocationDigest(r), signature);
        bytes32 relationship = byRevokeKey ? relationshipOf(otherKey, recovered) : relationshipOf(recovered, otherKey);
        require(relationship == r.relationship, WrongSigner(recovered));
        require(r.version != 0, VersionNotRaised(0, 0));
        Consent storage known = consents[r.relationship];
        if (r.version <= known.revoked) return;
        known.revoked = r.version;
        epoch++;
        emit Revoked(r.relationship, r, signature);
    }

    // ----------------------------------------------------------------------------------------------- devices

    /// @notice Binds a device to the signer's home, or releases it. Who signs, binds for their own home and for no other: a signature
    /// for another chain or contract gives an address that nobody has.
    function bindDevice(DeviceBinding calldata b, bytes calldata signature) external {
        bytes32 key = bindingKey(signer(bindingDigest(b), signature), b.commitment);
        Binding storage known = bindings[key];
        require(b.version > known.version, VersionNotRaised(b.version, known.version));
        known.version = b.version;
        known.bound = b.bound;
        epoch++;
        emit DeviceBound(key, b, signature);
    }

    // ------------------------------------------------------------------------------------------- emergencies

    /// @notice Breaks the glass: an active emergency domain's access to a pseudonym, `EMERGENCY_MAX_S` at most. One that is over may
    /// still be written down; one ends early by the next number with an earlier end.
    function openEmergency(Emergency calldata e, bytes calldata signature) external {
        address recovered = signer(emergencyDigest(e), signature);
        require(recovered == e.domain, WrongSigner(recovered));
        Participant storage domain = participants[e.domain];
        require(domain.status == ACTIVE && domain.emergency, NotEmergencyParticipant(e.domain));
        require(e.from < e.until, TimesReversed(e.from, e.until));
        require(e.until - e.from <= EMERGENCY_MAX_S, EmergencyTooLong(e.until - e.from));
        require(e.from <= block.timestamp + EMERGENCY_AHEAD_MAX_S, EmergencyAhead(e.from, uint64(block.timestamp)));
        EmergencyAccess storage known = emergencies[emergencyKey(e.pseudonym, e.domain)];
        require(e.number > known.number, VersionNotRaised(e.number, known.number));
        known.clinician = e.clinician;
        known.reason = e.reason;
        known.from = e.from;
        known.until = e.until;
        known.number = e.number;
        known.reviewed = false;
        epoch++;
        emit EmergencyOpened(e.pseudonym, e.domain, e, signature);
    }

    /// @notice Notes that somebody looked at an emergency. By the registrar; it neither ends nor lengthens it.
    function reviewEmergency(bytes32 pseudonym, address domain, uint64 number) external {
        require(msg.sender == registrar, NotRegistrar(msg.sender));
        EmergencyAccess storage known = emergencies[emergencyKey(pseudonym, domain)];
        require(number != 0 && number == known.number, NotThisEmergency(number, known.number));
        known.reviewed = true;
        epoch++;
        emit EmergencyReviewed(pseudonym, domain, number);
    }

    // ------------------------------------------------------------------------------------ for clients, auditors

    /// @notice A relationship's name: the hash of its two keys.
    function relationshipOf(address grantKey, address revokeKey) public pure returns (bytes32) {
        return keccak256(abi.encode(grantKey, revokeKey));
    }

    /// @notice Where a device's binding lies in `bindings`.
    function bindingKey(address homeKey, bytes32 commitment) public pure returns (bytes32) {
        return keccak256(abi.encode(homeKey, commitment));
    }

    /// @notice Where a domain's emergency lies in `emergencies`.
    function emergencyKey(bytes32 pseudonym, address domain) public pure returns (bytes32) {
        return keccak256(abi.encode(pseudonym, domain));
    }

    /// @notice Whether a relationship's newest grant is unrevoked and holds at `time`. Whether its grantee takes part is another
    /// question: `participants`.
    function consentHolds(bytes32 relationship, uint64 time) external view returns (bool) {
        Consent storage known = consents[relationship];
        return known.version > known.revoked && known.from <= time && time < known.until;
    }

    /// @notice Whether a domain's newest emergency covers `time`. Its end alone ends it; a domain that was suspended opens no more.
    function emergencyHolds(bytes32 pseudonym, address domain, uint64 time) external view returns (bool) {
        EmergencyAccess storage known = emergencies[emergencyKey(pseudonym, domain)];
        return known.from <= time && time < known.until && participants[domain].status == ACTIVE;
    }

    /// @notice EIP-712's domain separator of this contract on this chain.
    function domainSeparator() public view returns (bytes32) {
        return block.chainid == deployedChainId ? deployedSeparator : separator();
    }

    /// @notice EIP-5267: the domain for which messages are signed.
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        )
    {
        return (hex"0f", "Caregate", "1", block.chainid, address(this), bytes32(0), new uint256[](0));
    }

    /// @notice What a grant key signs.
    function grantDigest(Grant calldata g) public view returns (bytes32) {
        return digest(keccak256(abi.encode(GRANT_TYPE, g)));
    }

    /// @notice What a grant key or a revoke-only key signs.
    function revocationDigest(Revocation calldata r) public view returns (bytes32) {
        return digest(keccak256(abi.encode(REVOCATION_TYPE, r)));
    }

    /// @notice What a home key signs.
    function bindingDigest(DeviceBinding calldata b) public view returns (bytes32) {
        return digest(keccak256(abi.encode(BINDING_TYPE, b)));
    }

    /// @notice What a participant signs.
    function participantKeyDigest(ParticipantKey calldata k) public view returns (bytes32) {
        return digest(keccak256(abi.encode(KEY_TYPE, k)));
    }

    /// @notice What a domain signs that breaks the glass.
    function emergencyDigest(Emergency calldata e) public view returns (bytes32) {
        return digest(keccak256(abi.encode(EMERGENCY_TYPE, e)));
    }

    function digest(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domainSeparator(), structHash));
    }

    function separator() private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, keccak256("Caregate"), keccak256("1"), block.chainid, address(this)));
    }

    /// @dev The address that signed, from a signature in its one allowed form.
    function signer(bytes32 hash, bytes calldata signature) private pure returns (address) {
        require(signature.length == 65, SignatureLength(signature.length));
        uint8 v = uint8(signature[64]);
        require(v == 27 || v == 28, SignatureV(v));
        bytes32 s = bytes32(signature[32:64]);
        require(uint256(s) <= S_MAX, SignatureHighS());
        address recovered = ecrecover(hash, v, bytes32(signature[0:32]), s);
        require(recovered != address(0), SignatureInvalid());
        return recovered;
    }
}
