// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Caregate} from "../src/Caregate.sol";
import {SiteTest} from "./Site.sol";

/// @dev What each transaction takes, first time and again: gas in all, and bytes of its data. `snapshots/GasTest.json` has it,
/// docs/contract.md tells it, and a run that finds other numbers fails.
contract GasTest is SiteTest {
    function gas(string memory name, bytes memory data) private {
        (bool done,) = address(ledger).call(data);
        require(done, name);
        vm.snapshotGasLastCall(name);
        vm.snapshotValue(string.concat(name, ", bytes"), data.length);
    }

    function grantData(uint64 version) private view returns (bytes memory) {
        Grant memory g = grantOf(version);
        return abi.encodeCall(ledger.grant, (g, vm.addr(REVOKE_KEY), sign(GRANT_KEY, ledger.grantDigest(g))));
    }

    function test_grant() public {
        gas("grant, first of a relationship", grantData(1));
    }

    function test_grant_again() public {
        grant(1);
        gas("grant, again", grantData(2));
    }

    function revokeData() private view returns (bytes memory) {
        Revocation memory r = Revocation(relationship(), 1);
        bytes memory signature = sign(REVOKE_KEY, ledger.revocationDigest(r));
        return abi.encodeCall(ledger.revoke, (r, vm.addr(GRANT_KEY), true, signature));
    }

    function test_revoke() public {
        grant(1);
        gas("revoke", revokeData());
    }

    function test_revoke_repeated() public {
        grant(1);
        revoke(1);
        gas("revoke, repeated", revokeData());
    }

    function test_rotate() public {
        KeyRotation memory r = rotationTo(NEXT_GRANT_KEY, NEXT_REVOKE_KEY, 1);
        bytes memory signature = sign(GRANT_KEY, ledger.rotationDigest(r));
        gas("rotateKeys", abi.encodeCall(ledger.rotateKeys, (r, vm.addr(REVOKE_KEY), signature)));
    }

    function test_custodians() public {
        Custody memory c = Custody(relationship(), SALT, 1);
        bytes memory signature = sign(GRANT_KEY, ledger.custodyDigest(c));
        gas("setCustodians", abi.encodeCall(ledger.setCustodians, (c, vm.addr(REVOKE_KEY), signature)));
    }

    function test_recover() public {
        setCustodians(1 days, 1);
        KeyRecovery memory r = recovery();
        bytes[] memory signatures = signaturesOf(r, 2);
        gas("recoverKeys, 2 of 3", abi.encodeCall(ledger.recoverKeys, (r, custodians(1 days), signatures)));
    }

    function test_complete() public {
        setCustodians(1 days, 1);
        KeyRecovery memory r = recovery();
        ledger.recoverKeys(r, custodians(1 days), signaturesOf(r, 2));
        vm.warp(BEGIN + 1 days);
        gas("completeRecovery", abi.encodeCall(ledger.completeRecovery, (r)));
    }

    function test_bind() public {
        DeviceBinding memory b = DeviceBinding(SALT, true, 1);
        gas("bindDevice", abi.encodeCall(ledger.bindDevice, (b, sign(HOME_KEY, ledger.bindingDigest(b)))));
    }

    function test_key() public {
        ParticipantKey memory k = ParticipantKey(vm.addr(HOSPITAL_KEY), SALT, 1);
        bytes memory signature = sign(HOSPITAL_KEY, ledger.participantKeyDigest(k));
        gas("setParticipantKey", abi.encodeCall(ledger.setParticipantKey, (k, signature)));
    }

    function test_emergency() public {
        register(true);
        Emergency memory e = emergencyOf(1);
        bytes memory signature = sign(HOSPITAL_KEY, ledger.emergencyDigest(e));
        gas("openEmergency", abi.encodeCall(ledger.openEmergency, (e, signature)));
    }

    function test_review() public {
        register(true);
        openEmergency(emergencyOf(1));
        EmergencyReview memory r = EmergencyReview(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY), 1);
        bytes memory signature = sign(governorKeys[0], ledger.reviewDigest(r));
        gas("reviewEmergency", abi.encodeCall(ledger.reviewEmergency, (r, signature)));
    }

    function test_anchor() public {
        anchor(1, 10);
        Anchor memory a = Anchor(vm.addr(LOG_KEY), 11, 20, SALT);
        gas("anchor", abi.encodeCall(ledger.anchor, (a, sign(LOG_KEY, ledger.anchorDigest(a)))));
    }

    function approval(uint256 seat) private view returns (bytes memory) {
        ParticipantChange memory c = hospital(1, true, 1);
        bytes memory signature = sign(governorKeys[seat], ledger.participantChangeDigest(c));
        return abi.encodeCall(ledger.approveParticipant, (c, signature));
    }

    function test_approve() public {
        gas("approveParticipant, first", approval(0));
    }

    function test_apply() public {
        ParticipantChange memory c = hospital(1, true, 1);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, c);
        }
        vm.warp(BEGIN + DELAY_S);
        gas("applyParticipant", abi.encodeCall(ledger.applyParticipant, (c)));
    }

    function test_council() public {
        CouncilChange memory c = CouncilChange(governorsOf(5), 2, DELAY_S, 2);
        for (uint256 seat = 0; seat < 3; seat++) {
            ledger.approveCouncil(c, sign(governorKeys[seat], ledger.councilChangeDigest(c)));
        }
        vm.warp(BEGIN + DELAY_S);
        gas("applyCouncil, five governors", abi.encodeCall(ledger.applyCouncil, (c)));
    }

    function test_approve_council() public {
        CouncilChange memory c = CouncilChange(governorsOf(5), 2, DELAY_S, 2);
        bytes memory signature = sign(governorKeys[0], ledger.councilChangeDigest(c));
        gas("approveCouncil, first, five governors", abi.encodeCall(ledger.approveCouncil, (c, signature)));
    }

    function test_deploy() public {
        bytes memory code = abi.encodePacked(type(Caregate).creationCode, abi.encode(governorsOf(5), 3, DELAY_S));
        new Caregate(governorsOf(5), 3, DELAY_S);
        vm.snapshotGasLastCall("constructor, five governors");
        vm.snapshotValue("constructor, five governors, bytes", code.length);
    }

    function test_oppose() public {
        Objection memory o = Objection(SALT);
        gas("oppose, first", abi.encodeCall(ledger.oppose, (o, sign(governorKeys[0], ledger.objectionDigest(o)))));
    }
}
