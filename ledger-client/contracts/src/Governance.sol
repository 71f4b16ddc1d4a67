// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CaregateStorage} from "./CaregateStorage.sol";
import {Messages} from "./Messages.sol";

/// @title Who takes part: `threshold` of the governors, and a delay in which the others see it coming.
/// @dev A change is approved by each governor with a signed message and is named by that message's digest. What narrows (a domain is
/// suspended, or loses a right) holds with the last approval; what widens waits. So many governors as could have kept a change from
/// its approvals can stop it while it waits. Governors can neither grant nor set a key: they say who may be granted to.
abstract contract Governance is CaregateStorage, Messages {
    constructor(address[] memory governors_, uint8 threshold, uint64 delayS) {
        install(governors_, threshold, delayS, 1);
    }

    /// @notice Who governs.
    function governors() external view returns (address[] memory) {
        return governorList;
    }

    /// @notice Where a change lies in `pendingChanges`: with who governs, approvals that were given to others' change are void.
    function changeKey(bytes32 change) public view returns (bytes32) {
        return keccak256(abi.encode(council.version, change));
    }

    /// @notice A governor's approval that a domain takes part, is suspended, or changes what it is. The last one that is needed puts
    /// it in force, at once where it only narrows or there is no delay.
    function approveParticipant(ParticipantChange calldata c, bytes calldata signature) external {
        bytes32 change = checkParticipant(c);
        if (approve(change, signature, narrows(c))) setParticipant(c, change);
    }

    /// @notice Puts a change in force that is approved and has waited. By anybody.
    function applyParticipant(ParticipantChange calldata c) external {
        bytes32 change = checkParticipant(c);
        mature(change);
        setParticipant(c, change);
    }

    /// @notice A governor's approval of who governs from now on.
    function approveCouncil(CouncilChange calldata c, bytes calldata signature) external {
        bytes32 change = checkCouncil(c);
        if (approve(change, signature, false)) setCouncil(c, change);
    }

    /// @notice Puts a change of who governs in force that is approved and has waited. By anybody.
    function applyCouncil(CouncilChange calldata c) external {
        bytes32 change = checkCouncil(c);
        mature(change);
        setCouncil(c, change);
    }

    /// @notice A governor is against a change. It stops when those who are for it can't be enough without those who are against it.
    function oppose(Objection calldata o, bytes calldata signature) external {
        address governor = signer(objectionDigest(o), signature);
        uint16 seat = seatOf(governor);
        PendingChange storage known = pendingChanges[changeKey(o.change)];
        // slither-disable-start timestamp
        require(!known.closed, ChangeClosed(o.change)); // a bit beside a time, as the seats are
        require(known.objections & seat == 0, SaidAlready(governor));
        // slither-disable-end timestamp
        known.objections |= seat;
        bool stopped = count(known.objections) + council.threshold > governorList.length;
        if (stopped) known.closed = true;
        emit ChangeOpposed(o.change, governor, stopped);
    }

    function checkParticipant(ParticipantChange calldata c) private view returns (bytes32) {
        require(c.participant != address(0), ZeroAddress());
        require(c.status <= STATUS_MAX, UnknownStatus(c.status));
        require(c.kind <= KIND_MAX, UnknownKind(c.kind));
        uint64 known = participantVersions[c.participant];
        require(c.version == known + 1, VersionNotNext(c.version, known));
        return participantChangeDigest(c);
    }

    function checkCouncil(CouncilChange calldata c) private view returns (bytes32) {
        require(c.version == council.version + 1, VersionNotNext(c.version, council.version));
        require(c.governors.length <= GOVERNORS_MAX, CouncilMalformed());
        return councilChangeDigest(c);
    }

    /// @dev Whether nobody can do more after it than before.
    function narrows(ParticipantChange calldata c) private view returns (bool) {
        Participant storage known = participants[c.participant];
        if (c.status != ACTIVE) return true;
        return known.status == ACTIVE && c.kind <= known.kind && (known.emergency || !c.emergency);
    }

    /// @dev Notes an approval, and says whether the change may be made now.
    function approve(bytes32 change, bytes calldata signature, bool narrowing) private returns (bool) {
        address governor = signer(change, signature);
        uint16 seat = seatOf(governor);
        PendingChange storage known = pendingChanges[changeKey(change)];
        require(!known.closed, ChangeClosed(change));
        require(known.approvals & seat == 0, SaidAlready(governor));
        known.approvals |= seat;
        if (known.readyAt == 0 && count(known.approvals) >= council.threshold) {
            known.readyAt = uint64(block.timestamp) + (narrowing ? 0 : council.delayS);
        }
        emit ChangeApproved(change, governor, known.readyAt);
        // slither-disable-next-line timestamp
        return known.readyAt != 0 && known.readyAt <= block.timestamp; // the delay is in block time by intent
    }

    function mature(bytes32 change) private view {
        PendingChange storage known = pendingChanges[changeKey(change)];
        require(!known.closed, ChangeClosed(change));
        // slither-disable-next-line timestamp
        require(known.readyAt != 0 && known.readyAt <= block.timestamp, TooEarly(known.readyAt)); // as above
    }

    function setParticipant(ParticipantChange calldata c, bytes32 change) private {
        pendingChanges[changeKey(change)].closed = true;
        participantVersions[c.participant] = c.version;
        Participant storage known = participants[c.participant];
        known.status = c.status;
        known.kind = c.kind;
        known.emergency = c.emergency;
        epoch++;
        emit ParticipantSet(c.participant, c.status, c.kind, c.emergency);
    }

    function setCouncil(CouncilChange calldata c, bytes32 change) private {
        pendingChanges[changeKey(change)].closed = true;
        for (uint256 i = 0; i < governorList.length; i++) {
            delete governorSeats[governorList[i]];
        }
        install(c.governors, c.threshold, c.delayS, c.version);
        epoch++;
    }

    /// @dev At most `GOVERNORS_MAX` turns, as those before.
    function install(address[] memory list, uint8 threshold, uint64 delayS, uint64 version) private {
        require(list.length != 0 && list.length <= GOVERNORS_MAX, CouncilMalformed());
        require(threshold != 0 && threshold <= list.length && delayS <= DELAY_MAX_S, CouncilMalformed());
        for (uint8 i = 0; i < list.length; i++) {
            require(list[i] != address(0) && governorSeats[list[i]] == 0, CouncilMalformed());
            governorSeats[list[i]] = i + 1;
        }
        governorList = list;
        council = Council(version, delayS, threshold);
        emit CouncilSet(list, threshold, delayS, version);
    }

    /// @dev A governor's bit.
    function seatOf(address governor) internal view returns (uint16) {
        uint8 seat = governorSeats[governor];
        require(seat != 0, NotGovernor(governor));
        return uint16(1) << (seat - 1);
    }

    /// @dev Bits that are set; as many turns.
    function count(uint16 seats) private pure returns (uint256 n) {
        for (; seats != 0; seats &= seats - 1) {
            n++;
        }
    }
}
