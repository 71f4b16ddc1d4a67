// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICaregate} from "./ICaregate.sol";

/// @title Where everything lies.
/// @dev The layout is an interface (docs/control-path.md, "The ledger"): gateways hold values against storage proofs. A change of a
/// struct's order or of a variable's slot breaks every verifier; `node/tests` holds both against each other.
///
/// No value here names a person. Relationships, home keys, commitments and pseudonyms are random or hashes of random values.
abstract contract CaregateStorage is ICaregate {
    /// @notice Rises with each change of policy: of anything below but pending changes, audit logs and reviews of
    /// emergencies that are not the newest.
    uint64 public epoch; // slot 0

    /// @notice Who takes part, by address.
    mapping(address => Participant) public participants; // slot 1

    /// @notice What patients grant, by relationship.
    mapping(bytes32 => Consent) public consents; // slot 2

    /// @notice Which devices are bound, by `bindingKey`.
    mapping(bytes32 => Binding) public bindings; // slot 3

    /// @notice Emergency access, by `emergencyKey`.
    mapping(bytes32 => EmergencyAccess) public emergencies; // slot 4

    /// @notice Keys that took the place of those that name a relationship, by relationship.
    mapping(bytes32 => RelationshipKeys) public relationshipKeys; // slot 5

    /// @notice Who may recover a relationship.
    mapping(bytes32 => CustodianSet) public custodianSets; // slot 6

    /// @notice Recoveries that wait, by relationship.
    mapping(bytes32 => PendingRecovery) public pendingRecoveries; // slot 7

    /// @notice How far logs are anchored, by their key's address.
    mapping(address => AuditLog) public auditLogs; // slot 8

    /// @notice How often the governors changed a participant.
    mapping(address => uint64) public participantVersions; // slot 9

    /// @notice Changes on their way, by `changeKey`.
    mapping(bytes32 => PendingChange) public pendingChanges; // slot 10

    /// @notice Who governs, and how.
    Council public council; // slot 11

    /// @dev At most `GOVERNORS_MAX`.
    address[] internal governorList; // slot 12

    /// @notice A governor's place in the list, from 1; 0 for who is none.
    mapping(address => uint8) public governorSeats; // slot 13

    /// @notice Which emergencies were reviewed, by `reviewKey`; a number that a domain passed over can be among them.
    mapping(bytes32 => bool) public reviews; // slot 14

    /// @notice Longest emergency: a shift's half, after which it has to be declared anew.
    uint64 public constant EMERGENCY_MAX_S = 4 hours;
    /// @notice How far ahead an emergency may begin: the difference of two clocks, not a stock for later.
    uint64 public constant EMERGENCY_AHEAD_MAX_S = 5 minutes;
    /// @notice Longest grant: a chronic illness's review at the latest. What has to last is granted anew.
    uint64 public constant GRANT_MAX_S = 3660 days;
    /// @notice Longest delay of a governed change or a recovery: beyond a month nobody watches for it any more.
    uint64 public constant DELAY_MAX_S = 30 days;
    /// @notice Most governors: as many as a network of hospitals has partners, and a loop's bound.
    uint8 public constant GOVERNORS_MAX = 16;
    /// @notice Most custodians of a relationship: family, a doctor, a notary; and a loop's bound.
    uint8 public constant CUSTODIANS_MAX = 8;

    uint8 internal constant ACTIVE = 1;
    uint8 internal constant STATUS_MAX = 2;
    uint8 internal constant KIND_MAX = 1;
}
