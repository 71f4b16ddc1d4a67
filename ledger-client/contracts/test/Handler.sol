// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Caregate} from "../src/Caregate.sol";
import {Site} from "./Site.sol";

/// @dev Does what anybody may do, in whatever order: with right and wrong keys, versions and times. It keeps beside the contract what
/// must be true of it by now. Calls of the contract that fail are looked into: what had to succeed is a broken promise.
contract Handler is Site {
    /// @dev Who may grant now, by the calls that went through.
    uint256 public grantKey = GRANT_KEY;
    uint256 public revokeKey = REVOKE_KEY;
    /// @dev Highest version granted and revoked.
    uint64 public granted;
    uint64 public revoked;
    /// @dev From when to when the newest grant holds.
    uint64 public from;
    uint64 public until;
    /// @dev Policy changes so far.
    uint64 public changes;
    /// @dev The newest anchored entry, and how often one was anchored.
    uint64 public anchored;
    uint64 public anchors;
    /// @dev Emergencies so far.
    uint64 public emergencies;
    /// @dev Whether the newest emergency was looked at.
    bool public reviewed;
    mapping(uint64 => bool) private reviews;
    /// @dev The hospital's newest key and its version.
    bytes32 public hpkeKey;
    uint64 public keyVersion;
    /// @dev The binding of `SALT` by home key: its version, and whether it is bound.
    mapping(address => uint64) public bindingVersions;
    mapping(address => bool) public bound;
    /// @dev Who governs are always the same five: how many of them it takes, the delay, and the council's version.
    uint8 public threshold = 3;
    uint64 public delayS = DELAY_S;
    uint64 public councilVersion = 1;
    /// @dev The council that governors approved last.
    uint256 private asked;
    /// @dev Whether somebody did what they may not, or could not do what they may.
    string public broken;

    constructor(Caregate ledger_) {
        ledger = ledger_;
    }

    function keyOf(uint256 n) private pure returns (uint256) {
        uint256[5] memory keys = [GRANT_KEY, REVOKE_KEY, NEXT_GRANT_KEY, NEXT_REVOKE_KEY, STRANGER_KEY];
        return keys[n % 5];
    }

    function expect(bool done, bool wanted, string memory what) private {
        if (done != wanted && bytes(broken).length == 0) broken = what;
        if (done) changes++;
    }

    function send(bytes memory data) private returns (bool done) {
        (done,) = address(ledger).call(data);
    }

    /// @dev Of any times, or of those that hold for the first month.
    function grantBy(uint256 n, uint64 version, uint64 from_, uint64 lasts) external {
        uint256 key = keyOf(n);
        Grant memory g = grantOf(version % 64);
        if (lasts & 1 == 1) {
            (g.from, g.until) = (from_, from_ > type(uint64).max - lasts ? type(uint64).max : from_ + lasts);
        }
        bytes memory signature = sign(key, ledger.grantDigest(g));
        bool done = send(abi.encodeCall(ledger.grant, (g, vm.addr(revokeKey), signature)));
        bool timed = g.from < g.until && g.until - g.from <= 3660 days;
        expect(done, key == grantKey && timed && g.version > granted && g.version > revoked, "grant");
        if (done) (granted, from, until) = (g.version, g.from, g.until);
    }

    /// @dev By each of the keys that may; it must always go through.
    function revokeBy(uint256 n, uint64 version) external {
        Revocation memory r = Revocation(relationship(), 1 + version % 64);
        bool first = n & 1 == 0;
        bool byRevokeKey = n & 2 == 0;
        uint256 grants = first ? GRANT_KEY : grantKey;
        uint256 revokes = first ? REVOKE_KEY : revokeKey;
        bytes memory signature = sign(byRevokeKey ? revokes : grants, ledger.revocationDigest(r));
        address other = vm.addr(byRevokeKey ? grants : revokes);
        bool done = send(abi.encodeCall(ledger.revoke, (r, other, byRevokeKey, signature)));
        expect(done, true, "a revocation did not go through");
        if (r.version > revoked) revoked = r.version;
        else changes--; // It changed nothing.
    }

    function strangerRevokes(uint64 version) external {
        Revocation memory r = Revocation(relationship(), version);
        bytes memory signature = sign(STRANGER_KEY, ledger.revocationDigest(r));
        expect(send(abi.encodeCall(ledger.revoke, (r, vm.addr(GRANT_KEY), true, signature))), false, "a stranger revoked");
    }

    function rotateBy(uint256 n, bool back) external {
        (,uint64 version,) = ledger.relationshipKeys(relationship());
        uint256 key = keyOf(n);
        (uint256 grants, uint256 revokes) = back ? (GRANT_KEY, REVOKE_KEY) : (NEXT_GRANT_KEY, NEXT_REVOKE_KEY);
        KeyRotation memory r = rotationTo(grants, revokes, version + 1);
        bytes memory signature = sign(key, ledger.rotationDigest(r));
        bool done = send(abi.encodeCall(ledger.rotateKeys, (r, vm.addr(revokeKey), signature)));
        expect(done, key == grantKey, "rotation");
        if (done) (grantKey, revokeKey) = (grants, revokes);
    }

    function nameCustodians(uint256 n, bool waits) external {
        (, uint64 version) = ledger.custodianSets(relationship());
        uint256 key = keyOf(n);
        Custody memory c =
            Custody(relationship(), ledger.custodiansCommitment(custodians(waits ? 1 days : 0)), version + 1);
        bytes memory signature = sign(key, ledger.custodyDigest(c));
        bool done = send(abi.encodeCall(ledger.setCustodians, (c, vm.addr(revokeKey), signature)));
        expect(done, key == grantKey, "custodians");
    }

    function recover(uint256 signers, bool waits) external {
        (,uint64 version,) = ledger.relationshipKeys(relationship());
        KeyRecovery memory r =
            KeyRecovery(relationship(), vm.addr(NEXT_GRANT_KEY), vm.addr(NEXT_REVOKE_KEY), version + 1);
        bytes[] memory signatures = signaturesOf(r, signers % 4);
        bool done = send(abi.encodeCall(ledger.recoverKeys, (r, custodians(waits ? 1 days : 0), signatures)));
        if (done && signers % 4 < 2) broken = "too few custodians";
        if (done) changes++;
        note(done && !waits);
    }

    function complete() external {
        (,uint64 version,) = ledger.relationshipKeys(relationship());
        KeyRecovery memory r =
            KeyRecovery(relationship(), vm.addr(NEXT_GRANT_KEY), vm.addr(NEXT_REVOKE_KEY), version + 1);
        (, uint64 readyAt,) = ledger.pendingRecoveries(relationship());
        bool done = send(abi.encodeCall(ledger.completeRecovery, (r)));
        if (done && (readyAt == 0 || readyAt > block.timestamp)) broken = "a recovery did not wait";
        if (done) changes++;
        note(done);
    }

    function note(bool recovered) private {
        if (recovered) (grantKey, revokeKey) = (NEXT_GRANT_KEY, NEXT_REVOKE_KEY);
    }

    function govern(uint256 seats, uint8 status, bool emergency) external {
        uint64 version = ledger.participantVersions(vm.addr(HOSPITAL_KEY)) + 1;
        ParticipantChange memory c = hospital(status % 3, emergency, version);
        bytes32 change = ledger.participantChangeDigest(c);
        for (uint256 seat = 0; seat < 5; seat++) {
            if (seats >> seat & 1 == 0) continue;
            bytes memory signature = sign(governorKeys[seat], change);
            send(abi.encodeCall(ledger.approveParticipant, (c, signature)));
            if (ledger.participantVersions(vm.addr(HOSPITAL_KEY)) == version) {
                (uint16 approvals,,,) = ledger.pendingChanges(ledger.changeKey(change));
                if (bits(approvals) < threshold) broken = "too few governors";
                changes++;
                return;
            }
        }
    }

    function apply_(uint8 status, bool emergency) external {
        uint64 version = ledger.participantVersions(vm.addr(HOSPITAL_KEY)) + 1;
        ParticipantChange memory c = hospital(status % 3, emergency, version);
        (uint16 approvals,, uint64 readyAt, bool closed) =
            ledger.pendingChanges(ledger.changeKey(ledger.participantChangeDigest(c)));
        bool ready = bits(approvals) >= threshold && readyAt <= block.timestamp && !closed;
        expect(send(abi.encodeCall(ledger.applyParticipant, (c))), ready, "a governed change");
    }

    /// @dev All at once, so that emergencies are opened in most runs; it reverts where some of it was done before.
    function admit() external {
        uint64 version = ledger.participantVersions(vm.addr(HOSPITAL_KEY));
        register(true);
        changes += ledger.participantVersions(vm.addr(HOSPITAL_KEY)) - version;
    }

    /// @dev What the same five could agree on; some of it no council could decide by.
    function councilOf(uint256 n) private view returns (CouncilChange memory c) {
        uint64[4] memory delays = [uint64(0), 1 days, DELAY_S, 31 days];
        c = CouncilChange(governorsOf(5), uint8(n % 7), delays[n / 7 % 4], councilVersion + 1);
        if (n / 28 % 8 == 0) c.governors[1] = c.governors[0];
    }

    function decides(CouncilChange memory c) private pure returns (bool) {
        return c.threshold != 0 && c.threshold <= 5 && c.delayS <= 30 days && c.governors[1] != c.governors[0];
    }

    /// @dev Approved by some of the governors, of whom the last that is needed may put it in force.
    function approveCouncilBy(uint256 seats, uint256 n) external {
        asked = n;
        CouncilChange memory c = councilOf(n);
        bytes32 change = ledger.councilChangeDigest(c);
        bytes32 key = ledger.changeKey(change);
        for (uint256 seat = 0; seat < 5; seat++) {
            if (seats >> seat & 1 == 0) continue;
            if (!send(abi.encodeCall(ledger.approveCouncil, (c, sign(governorKeys[seat], change))))) continue;
            (uint64 version,,) = ledger.council();
            if (version == councilVersion) continue;
            (uint16 approvals,, uint64 readyAt,) = ledger.pendingChanges(key);
            bool may = bits(approvals) >= threshold && readyAt <= block.timestamp && decides(c);
            expect(true, may, "a council by approval");
            note(c);
            return;
        }
    }

    function applyCouncilAsked() external {
        CouncilChange memory c = councilOf(asked);
        (uint16 approvals,, uint64 readyAt, bool closed) =
            ledger.pendingChanges(ledger.changeKey(ledger.councilChangeDigest(c)));
        bool ready = bits(approvals) >= threshold && readyAt <= block.timestamp && !closed;
        bool done = send(abi.encodeCall(ledger.applyCouncil, (c)));
        expect(done, ready && decides(c), "a council");
        if (done) note(c);
    }

    function note(CouncilChange memory c) private {
        (threshold, delayS, councilVersion) = (c.threshold, c.delayS, c.version);
    }

    function bits(uint16 seats) private pure returns (uint256 n) {
        for (; seats != 0; seats &= seats - 1) n++;
    }

    /// @dev One in eight leaves out who or why.
    function breakGlass(uint64 from_, uint64 lasts, uint8 named) external {
        (,, uint8 status,, bool allowed) = ledger.participants(vm.addr(HOSPITAL_KEY));
        Emergency memory e = emergencyOf(emergencies + 1);
        from_ %= uint64(block.timestamp) + 10 minutes;
        lasts %= 5 hours;
        (e.from, e.until) = (from_, from_ + lasts);
        if (named % 16 == 0) e.clinician = 0;
        if (named % 16 == 1) e.reason = 0;
        bytes memory signature = sign(HOSPITAL_KEY, ledger.emergencyDigest(e));
        bool bounded = named % 16 > 1 && lasts != 0 && lasts <= 4 hours && from_ <= block.timestamp + 5 minutes;
        bool done = send(abi.encodeCall(ledger.openEmergency, (e, signature)));
        expect(done, status == 1 && allowed && bounded, "an emergency");
        if (done) (emergencies, reviewed) = (emergencies + 1, false);
    }

    /// @dev By a governor or by somebody else, of the newest emergency or of another, or again.
    function reviewBy(uint256 n, uint64 number, bool newest) external {
        bool governs = n % 6 < 5;
        EmergencyReview memory r = EmergencyReview(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY), number % 64);
        if (newest) r.number = emergencies;
        bytes memory signature = sign(governs ? governorKeys[n % 6] : STRANGER_KEY, ledger.reviewDigest(r));
        bool done = send(abi.encodeCall(ledger.reviewEmergency, (r, signature)));
        expect(done, governs && r.number != 0 && r.number <= emergencies, "a review");
        if (!done) return;
        if (reviews[r.number] || r.number != emergencies) changes--; // It changed nothing that is proven.
        reviews[r.number] = true;
        reviewed = reviews[emergencies];
    }

    /// @dev A home is who signs: each key binds for its own alone.
    function bindBy(uint256 n, uint64 version, bool bind) external {
        DeviceBinding memory b = DeviceBinding(SALT, bind, version % 64);
        address home = vm.addr(keyOf(n));
        bytes memory signature = sign(keyOf(n), ledger.bindingDigest(b));
        bool done = send(abi.encodeCall(ledger.bindDevice, (b, signature)));
        expect(done, b.version > bindingVersions[home], "a binding");
        if (done) (bindingVersions[home], bound[home]) = (b.version, bind);
    }

    function setKeyBy(uint256 n, uint64 version, bytes32 hpke) external {
        uint256 key = n % 6 == 5 ? HOSPITAL_KEY : keyOf(n);
        ParticipantKey memory k = ParticipantKey(vm.addr(HOSPITAL_KEY), n % 7 == 0 ? bytes32(0) : hpke, version % 64);
        bytes memory signature = sign(key, ledger.participantKeyDigest(k));
        bool done = send(abi.encodeCall(ledger.setParticipantKey, (k, signature)));
        expect(done, key == HOSPITAL_KEY && k.hpkeKey != 0 && k.version > keyVersion, "a participant's key");
        if (done) (hpkeKey, keyVersion) = (k.hpkeKey, k.version);
    }

    /// @dev Against what may be approved next. It is no change of policy.
    function opposeBy(uint256 n, uint8 status, bool emergency) external {
        uint64 version = ledger.participantVersions(vm.addr(HOSPITAL_KEY)) + 1;
        bytes32 change = ledger.participantChangeDigest(hospital(status % 3, emergency, version));
        bytes32 key = ledger.changeKey(change);
        (, uint16 before,, bool closed) = ledger.pendingChanges(key);
        bool governs = n % 6 < 5;
        Objection memory o = Objection(change);
        bytes memory signature = sign(governs ? governorKeys[n % 6] : STRANGER_KEY, ledger.objectionDigest(o));
        bool done = send(abi.encodeCall(ledger.oppose, (o, signature)));
        if (done != (governs && !closed && before >> (n % 6) & 1 == 0)) broken = "an objection";
        (, uint16 objections,, bool stopped) = ledger.pendingChanges(key);
        if (done && (bits(objections) != bits(before) + 1 || stopped != (bits(objections) + threshold > 5))) broken = "what it stops";
    }

    function anchorBatch(uint64 first, uint8 entries) external {
        Anchor memory a = Anchor(vm.addr(LOG_KEY), first % 512, first % 512 + entries, SALT);
        bytes memory signature = sign(LOG_KEY, ledger.anchorDigest(a));
        bool done = send(abi.encodeCall(ledger.anchor, (a, signature)));
        if (done != (a.first == anchored + 1)) broken = "an anchor";
        if (done) (anchored, anchors) = (a.last, anchors + 1);
    }

    function anchorNext(uint8 entries) external {
        this.anchorBatch(anchored + 1 <= 511 ? anchored + 1 : 0, entries);
    }

    function wait_(uint32 seconds_) external {
        vm.warp(block.timestamp + seconds_ % 3 days);
    }
}
