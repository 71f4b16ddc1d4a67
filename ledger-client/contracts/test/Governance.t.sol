// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Caregate} from "../src/Caregate.sol";
import {SiteTest} from "./Site.sol";

/// @dev Who takes part, and who governs: five governors of whom three are needed.
contract GovernanceTest is SiteTest {
    function status() private view returns (uint8 known) {
        (,, known,,) = ledger.participants(vm.addr(HOSPITAL_KEY));
    }

    function objectAs(uint256 seat, bytes32 change) private {
        Objection memory o = Objection(change);
        ledger.oppose(o, sign(governorKeys[seat], ledger.objectionDigest(o)));
    }

    function council(uint256 n, uint8 threshold, uint64 delayS) private view returns (CouncilChange memory) {
        return CouncilChange(governorsOf(n), threshold, delayS, 2);
    }

    function approveCouncil(uint256 seat, CouncilChange memory c) private {
        ledger.approveCouncil(c, sign(governorKeys[seat], ledger.councilChangeDigest(c)));
    }

    function test_a_domain_comes_in_with_three_approvals_and_the_delay() public {
        ParticipantChange memory c = hospital(1, true, 1);
        approve(0, c);
        approve(4, c);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, 0));
        ledger.applyParticipant(c);
        approve(2, c);
        equal(status(), 0, "not yet");
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, BEGIN + DELAY_S));
        ledger.applyParticipant(c);
        vm.warp(BEGIN + DELAY_S);
        equal(ledger.epoch(), 0, "nothing changed so far");
        ledger.applyParticipant(c);
        equal(status(), 1, "active");
        equal(ledger.epoch(), 1, "epoch");
        vm.expectRevert(abi.encodeWithSelector(VersionNotNext.selector, 1, 1));
        ledger.applyParticipant(c);
    }

    function test_suspension_waits_for_nothing() public {
        register(true);
        ParticipantChange memory c = hospital(2, true, 2);
        approve(1, c);
        approve(2, c);
        equal(status(), 1, "two are not enough");
        approve(3, c);
        equal(status(), 2, "suspended");
        // Back in is wider again.
        c = hospital(1, true, 3);
        approve(1, c);
        approve(2, c);
        approve(3, c);
        equal(status(), 2, "still");
    }

    function testFuzz_only_what_narrows_comes_at_once(uint8 status_, uint8 kind, bool emergency, bool before) public {
        status_ %= 3;
        kind %= 2;
        register(before);
        ParticipantChange memory c = ParticipantChange(vm.addr(HOSPITAL_KEY), status_, kind, emergency, 2);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, c);
        }
        bool narrower = status_ != 1 || before || !emergency;
        equal(ledger.participantVersions(vm.addr(HOSPITAL_KEY)), narrower ? 2 : 1, "version");
    }

    function test_a_governor_counts_once_and_a_stranger_never() public {
        ParticipantChange memory c = hospital(1, false, 1);
        approve(0, c);
        bytes memory signature = sign(governorKeys[0], ledger.participantChangeDigest(c));
        vm.expectRevert(abi.encodeWithSelector(SaidAlready.selector, vm.addr(governorKeys[0])));
        ledger.approveParticipant(c, signature);
        signature = sign(STRANGER_KEY, ledger.participantChangeDigest(c));
        vm.expectRevert(abi.encodeWithSelector(NotGovernor.selector, vm.addr(STRANGER_KEY)));
        ledger.approveParticipant(c, signature);
        Objection memory o = Objection(ledger.participantChangeDigest(c));
        signature = sign(STRANGER_KEY, ledger.objectionDigest(o));
        vm.expectRevert(abi.encodeWithSelector(NotGovernor.selector, vm.addr(STRANGER_KEY)));
        ledger.oppose(o, signature);
    }

    function testFuzz_only_governors_approve(uint256 key, ParticipantChange memory c) public {
        key = 1 + key % type(uint128).max;
        vm.assume(ledger.governorSeats(vm.addr(key)) == 0);
        vm.assume(c.participant != address(0));
        (c.status, c.kind, c.version) = (c.status % 3, c.kind % 2, 1);
        bytes memory signature = sign(key, ledger.participantChangeDigest(c));
        vm.expectRevert(abi.encodeWithSelector(NotGovernor.selector, vm.addr(key)));
        ledger.approveParticipant(c, signature);
    }

    function test_three_of_five_against_stop_a_change_that_waits() public {
        ParticipantChange memory c = hospital(1, true, 1);
        bytes32 change = ledger.participantChangeDigest(c);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, c);
        }
        objectAs(3, change);
        objectAs(4, change);
        (,,, bool closed) = ledger.pendingChanges(ledger.changeKey(change));
        require(!closed, "two leave three who may be for it");
        objectAs(0, change);
        vm.warp(BEGIN + DELAY_S);
        vm.expectRevert(abi.encodeWithSelector(ChangeClosed.selector, change));
        ledger.applyParticipant(c);
        bytes memory signature = sign(governorKeys[3], change);
        vm.expectRevert(abi.encodeWithSelector(ChangeClosed.selector, change));
        ledger.approveParticipant(c, signature);
    }

    function test_what_was_overtaken_does_not_come_back() public {
        register(true);
        // Approved, and waiting: a wider right.
        ParticipantChange memory narrow = hospital(1, false, 2);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, narrow);
        }
        ParticipantChange memory wide = hospital(1, true, 3);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, wide);
        }
        ParticipantChange memory suspend = hospital(2, false, 3);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, suspend);
        }
        vm.warp(block.timestamp + DELAY_S);
        vm.expectRevert(abi.encodeWithSelector(VersionNotNext.selector, 3, 3));
        ledger.applyParticipant(wide);
        equal(status(), 2, "suspended");
    }

    function test_the_council_changes_itself_after_the_delay_and_old_approvals_are_void() public {
        ParticipantChange memory c = hospital(1, true, 1);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, c);
        }
        CouncilChange memory next = council(2, 2, 1 hours);
        for (uint256 seat = 0; seat < 3; seat++) {
            approveCouncil(seat, next);
        }
        vm.warp(BEGIN + DELAY_S);
        ledger.applyCouncil(next);
        equal(ledger.governors().length, 2, "governors");
        equal(ledger.governorSeats(vm.addr(governorKeys[2])), 0, "no seat");
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, 0));
        ledger.applyParticipant(c);
        approve(0, c);
        approve(1, c);
        vm.warp(block.timestamp + 1 hours);
        ledger.applyParticipant(c);
        equal(status(), 1, "active");
    }

    function test_a_council_is_one_that_can_decide() public {
        CouncilChange[5] memory bad = [
            council(0, 1, 0), council(5, 0, 0), council(5, 6, 0), council(5, 3, 31 days), council(5, 3, 0)
        ];
        bad[4].governors[1] = bad[4].governors[0];
        for (uint256 i = 0; i < bad.length; i++) {
            for (uint256 seat = 0; seat < 3; seat++) {
                approveCouncil(seat, bad[i]);
            }
        }
        vm.warp(BEGIN + DELAY_S);
        for (uint256 i = 0; i < bad.length; i++) {
            vm.expectRevert(abi.encodeWithSelector(CouncilMalformed.selector));
            ledger.applyCouncil(bad[i]);
        }
        CouncilChange memory many = CouncilChange(new address[](17), 1, 0, 2);
        bytes memory signature = sign(governorKeys[0], ledger.councilChangeDigest(many));
        vm.expectRevert(abi.encodeWithSelector(CouncilMalformed.selector));
        ledger.approveCouncil(many, signature);
        vm.expectRevert(abi.encodeWithSelector(CouncilMalformed.selector));
        new Caregate(new address[](0), 1, 0);
        vm.expectRevert(abi.encodeWithSelector(CouncilMalformed.selector));
        new Caregate(new address[](1), 1, 0);
    }

    function test_one_governor_without_delay_decides_alone() public {
        ledger = new Caregate(governorsOf(1), 1, 0);
        approve(0, hospital(1, true, 1));
        equal(status(), 1, "active");
    }

    /// @dev Whatever the governors do, nobody's key and nobody's consent changes.
    function testFuzz_governors_touch_no_key_and_no_consent(uint8 status_, uint8 kind, bool emergency) public {
        register(true);
        ParticipantKey memory k = ParticipantKey(vm.addr(HOSPITAL_KEY), SALT, 1);
        ledger.setParticipantKey(k, sign(HOSPITAL_KEY, ledger.participantKeyDigest(k)));
        grant(1);
        ParticipantChange memory c = ParticipantChange(vm.addr(HOSPITAL_KEY), status_ % 3, kind % 2, emergency, 2);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, c);
        }
        (bytes32 key, uint64 version,,,) = ledger.participants(vm.addr(HOSPITAL_KEY));
        require(key == SALT && version == 1, "the key");
        require(ledger.consentHolds(relationship(), BEGIN), "the consent");
    }
}
