// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Governance} from "./Governance.sol";
import {Relationships} from "./Relationships.sol";

/// @title Who may open a patient's readings, which devices are whose, and who takes part.
/// @notice Patients grant and revoke, participants set their keys and break the glass, each by a signed EIP-712 message that anybody
/// may relay. Nobody else can: the governors say who takes part, and no more. There is no owner, no proxy and no way to stop it.
contract Caregate is Governance, Relationships {
    /// @param governors_ who say who takes part
    /// @param threshold how many of them it takes
    /// @param delayS seconds that what widens waits
    constructor(address[] memory governors_, uint8 threshold, uint64 delayS) Governance(governors_, threshold, delayS) {}

    // ------------------------------------------------------------------------------------------ participants

    /// @notice Sets a participant's HPKE key. Whether and as what it takes part is the governors' word, before or after.
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
    /// still be written down; one ends early by the next number with an earlier end. How often it is used is for review, and no
    /// reason to refuse.
    function openEmergency(Emergency calldata e, bytes calldata signature) external {
        address recovered = signer(emergencyDigest(e), signature);
        require(recovered == e.domain, WrongSigner(recovered));
        Participant storage domain = participants[e.domain];
        require(domain.status == ACTIVE && domain.emergency, NotEmergencyParticipant(e.domain));
        require(e.clinician != 0 && e.reason != 0, EmergencyUnnamed());
        require(e.from < e.until, TimesReversed(e.from, e.until));
        require(e.until - e.from <= EMERGENCY_MAX_S, EmergencyTooLong(e.until - e.from));
        // slither-disable-next-line timestamp
        require(e.from <= block.timestamp + EMERGENCY_AHEAD_MAX_S, EmergencyAhead(e.from, uint64(block.timestamp))); // times are what it is about
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

    /// @notice Notes that a governor looked at an emergency, which was not their own; it neither ends nor lengthens it. One that a later
    /// one took the place of can be looked at as well. A second look changes nothing.
    function reviewEmergency(EmergencyReview calldata r, bytes calldata signature) external {
        address governor = signer(reviewDigest(r), signature);
        require(seatOf(governor) != 0 && governor != r.domain, NotGovernor(governor));
        bytes32 key = emergencyKey(r.pseudonym, r.domain);
        EmergencyAccess storage known = emergencies[key];
        require(r.number != 0 && r.number <= known.number, NotThisEmergency(r.number, known.number));
        bytes32 review = reviewKey(key, r.number);
        if (reviews[review]) return;
        reviews[review] = true;
        // What is proven to gateways is the newest alone.
        if (r.number == known.number) {
            known.reviewed = true;
            epoch++;
        }
        emit EmergencyReviewed(r.pseudonym, r.domain, r.number);
    }

    // ------------------------------------------------------------------------------------------------- audit

    /// @notice Anchors the next batch of a log's entries. Batches follow each other without a gap, so what is anchored is complete.
    function anchor(Anchor calldata a, bytes calldata signature) external {
        address recovered = signer(anchorDigest(a), signature);
        require(recovered == a.log, WrongSigner(recovered));
        AuditLog storage known = auditLogs[a.log];
        require(a.first == known.last + 1, NotNextEntry(a.first, known.last + 1));
        require(a.last >= a.first, TimesReversed(a.first, a.last));
        require(a.root != 0, ZeroKey());
        known.root = a.root;
        known.last = a.last;
        known.anchors++;
        emit Anchored(a.log, a, signature);
    }

    // ------------------------------------------------------------------------------------ for clients, auditors

    /// @notice Where a device's binding lies in `bindings`.
    function bindingKey(address homeKey, bytes32 commitment) public pure returns (bytes32) {
        return keccak256(abi.encode(homeKey, commitment));
    }

    /// @notice Where a domain's emergency lies in `emergencies`.
    function emergencyKey(bytes32 pseudonym, address domain) public pure returns (bytes32) {
        return keccak256(abi.encode(pseudonym, domain));
    }

    /// @notice Where a review of an emergency lies in `reviews`.
    function reviewKey(bytes32 emergency, uint64 number) public pure returns (bytes32) {
        return keccak256(abi.encode(emergency, number));
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
}
