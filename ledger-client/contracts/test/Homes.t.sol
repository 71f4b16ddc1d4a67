// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SiteTest} from "./Site.sol";

/// @dev Participants' keys, devices, emergencies and audit logs.
contract HomesTest is SiteTest {
    function testFuzz_a_participant_sets_its_own_key_alone(uint256 key, bytes32 hpke) public {
        key = 1 + key % type(uint128).max;
        ParticipantKey memory k = ParticipantKey(vm.addr(HOSPITAL_KEY), hpke, 1);
        bytes memory signature = sign(key, ledger.participantKeyDigest(k));
        if (key != HOSPITAL_KEY) vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(key)));
        else if (hpke == 0) vm.expectRevert(abi.encodeWithSelector(ZeroKey.selector));
        ledger.setParticipantKey(k, signature);
    }

    function test_a_participants_key_rises() public {
        ParticipantKey memory k = ParticipantKey(vm.addr(HOSPITAL_KEY), SALT, 7);
        bytes memory signature = sign(HOSPITAL_KEY, ledger.participantKeyDigest(k));
        ledger.setParticipantKey(k, signature);
        vm.expectRevert(abi.encodeWithSelector(VersionNotRaised.selector, 7, 7));
        ledger.setParticipantKey(k, signature);
    }

    /// @dev Anybody binds for the home that their own key names, and for no other.
    function testFuzz_a_binding_is_the_signers_homes(uint256 key, bytes32 commitment, bool bound) public {
        key = 1 + key % type(uint128).max;
        DeviceBinding memory b = DeviceBinding(commitment, bound, 1);
        ledger.bindDevice(b, sign(key, ledger.bindingDigest(b)));
        (uint64 version, bool known) = ledger.bindings(ledger.bindingKey(vm.addr(key), commitment));
        require(version == 1 && known == bound, "the binding");
        if (key != HOME_KEY) {
            (version,) = ledger.bindings(ledger.bindingKey(vm.addr(HOME_KEY), commitment));
            equal(version, 0, "another's");
        }
    }

    function test_a_released_device_is_not_bound_again_by_the_old_word() public {
        DeviceBinding memory b = DeviceBinding(SALT, true, 1);
        bytes memory bind = sign(HOME_KEY, ledger.bindingDigest(b));
        ledger.bindDevice(b, bind);
        DeviceBinding memory release = DeviceBinding(SALT, false, 2);
        ledger.bindDevice(release, sign(HOME_KEY, ledger.bindingDigest(release)));
        vm.expectRevert(abi.encodeWithSelector(VersionNotRaised.selector, 1, 2));
        ledger.bindDevice(b, bind);
    }

    function test_an_emergency_is_a_registered_domains() public {
        Emergency memory e = emergencyOf(1);
        bytes memory signature = sign(HOSPITAL_KEY, ledger.emergencyDigest(e));
        vm.expectRevert(abi.encodeWithSelector(NotEmergencyParticipant.selector, vm.addr(HOSPITAL_KEY)));
        ledger.openEmergency(e, signature);
        register(false);
        vm.expectRevert(abi.encodeWithSelector(NotEmergencyParticipant.selector, vm.addr(HOSPITAL_KEY)));
        ledger.openEmergency(e, signature);
        register(true);
        ledger.openEmergency(e, signature);
        signature = sign(STRANGER_KEY, ledger.emergencyDigest(e));
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(STRANGER_KEY)));
        ledger.openEmergency(e, signature);
    }

    function test_an_emergency_names_its_clinician_and_its_reason() public {
        register(true);
        Emergency memory e = emergencyOf(1);
        (e.clinician, e.reason) = (0, SALT);
        bytes memory signature = sign(HOSPITAL_KEY, ledger.emergencyDigest(e));
        vm.expectRevert(abi.encodeWithSelector(EmergencyUnnamed.selector));
        ledger.openEmergency(e, signature);
        (e.clinician, e.reason) = (SALT, 0);
        signature = sign(HOSPITAL_KEY, ledger.emergencyDigest(e));
        vm.expectRevert(abi.encodeWithSelector(EmergencyUnnamed.selector));
        ledger.openEmergency(e, signature);
        openEmergency(emergencyOf(1));
    }

    function testFuzz_an_emergency_lasts_four_hours_at_most(uint64 from, uint64 lasts) public {
        register(true);
        from %= uint64(block.timestamp) + 10 minutes;
        lasts = 1 + lasts % 8 hours;
        Emergency memory e = emergencyOf(1);
        (e.from, e.until) = (from, from + lasts);
        bytes memory signature = sign(HOSPITAL_KEY, ledger.emergencyDigest(e));
        if (lasts > 4 hours) {
            vm.expectRevert(abi.encodeWithSelector(EmergencyTooLong.selector, lasts));
        } else if (from > block.timestamp + 5 minutes) {
            vm.expectRevert(abi.encodeWithSelector(EmergencyAhead.selector, from, uint64(block.timestamp)));
        }
        ledger.openEmergency(e, signature);
    }

    /// @dev However often: an emergency is never refused for its frequency.
    function test_a_hundred_emergencies_in_one_second() public {
        register(true);
        for (uint64 number = 1; number <= 100; number++) {
            openEmergency(emergencyOf(number));
            require(ledger.emergencyHolds(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY), uint64(block.timestamp)));
        }
    }

    function test_a_review_is_another_governors_and_changes_nothing_else() public {
        register(true);
        openEmergency(emergencyOf(1));
        EmergencyReview memory r = EmergencyReview(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY), 1);
        bytes memory signature = sign(STRANGER_KEY, ledger.reviewDigest(r));
        vm.expectRevert(abi.encodeWithSelector(NotGovernor.selector, vm.addr(STRANGER_KEY)));
        ledger.reviewEmergency(r, signature);
        ledger.reviewEmergency(r, sign(governorKeys[4], ledger.reviewDigest(r)));
        bytes32 key = ledger.emergencyKey(r.pseudonym, r.domain);
        (,,,,, bool reviewed) = ledger.emergencies(key);
        require(reviewed && ledger.emergencyHolds(r.pseudonym, r.domain, uint64(block.timestamp)));
        r.number = 2;
        signature = sign(governorKeys[4], ledger.reviewDigest(r));
        vm.expectRevert(abi.encodeWithSelector(NotThisEmergency.selector, 2, 1));
        ledger.reviewEmergency(r, signature);
        openEmergency(emergencyOf(2));
        (,,,,, reviewed) = ledger.emergencies(key);
        require(!reviewed, "the next one is to be looked at");
    }

    function test_an_emergency_that_another_took_the_place_of_is_reviewed_too() public {
        register(true);
        openEmergency(emergencyOf(1));
        openEmergency(emergencyOf(3));
        bytes32 key = ledger.emergencyKey(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY));
        uint64 epoch = ledger.epoch();
        EmergencyReview memory r = EmergencyReview(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY), 1);
        bytes memory signature = sign(governorKeys[1], ledger.reviewDigest(r));
        vm.expectEmit();
        emit EmergencyReviewed(r.pseudonym, r.domain, 1);
        ledger.reviewEmergency(r, signature);
        (,,,, uint64 number, bool reviewed) = ledger.emergencies(key);
        require(ledger.reviews(ledger.reviewKey(key, 1)) && !ledger.reviews(ledger.reviewKey(key, 3)), "the first alone");
        require(number == 3 && !reviewed && ledger.epoch() == epoch, "the newest is as it was");
    }

    /// @dev Otherwise anybody could raise the epoch for ever with one old signature.
    function test_a_second_review_changes_nothing() public {
        register(true);
        openEmergency(emergencyOf(1));
        EmergencyReview memory r = EmergencyReview(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY), 1);
        uint64 epoch = ledger.epoch();
        for (uint256 seat = 0; seat < 3; seat++) {
            ledger.reviewEmergency(r, sign(governorKeys[seat], ledger.reviewDigest(r)));
            equal(ledger.epoch(), epoch + 1, "epoch");
        }
    }

    function test_anchors_leave_no_gap() public {
        anchor(1, 10);
        anchor(11, 11);
        Anchor memory a = Anchor(vm.addr(LOG_KEY), 13, 20, SALT);
        bytes memory signature = sign(LOG_KEY, ledger.anchorDigest(a));
        vm.expectRevert(abi.encodeWithSelector(NotNextEntry.selector, 13, 12));
        ledger.anchor(a, signature);
        a.first = 11;
        signature = sign(LOG_KEY, ledger.anchorDigest(a));
        vm.expectRevert(abi.encodeWithSelector(NotNextEntry.selector, 11, 12));
        ledger.anchor(a, signature);
        (a.first, a.last) = (12, 11);
        signature = sign(LOG_KEY, ledger.anchorDigest(a));
        vm.expectRevert(abi.encodeWithSelector(TimesReversed.selector, 12, 11));
        ledger.anchor(a, signature);
        (a.last, a.root) = (12, 0);
        signature = sign(LOG_KEY, ledger.anchorDigest(a));
        vm.expectRevert(abi.encodeWithSelector(ZeroKey.selector));
        ledger.anchor(a, signature);
        a.root = SALT;
        signature = sign(STRANGER_KEY, ledger.anchorDigest(a));
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(STRANGER_KEY)));
        ledger.anchor(a, signature);
        (bytes32 root, uint64 last, uint64 anchors) = ledger.auditLogs(vm.addr(LOG_KEY));
        require(root == keccak256(abi.encode(uint64(11), uint64(11))) && last == 11 && anchors == 2, "the log");
        equal(ledger.epoch(), 0, "no policy");
    }

    function test_signatures_have_one_spelling() public {
        DeviceBinding memory b = DeviceBinding(SALT, true, 1);
        bytes32 digest = ledger.bindingDigest(b);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(HOME_KEY, digest);
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        vm.expectRevert(abi.encodeWithSelector(SignatureHighS.selector));
        ledger.bindDevice(b, abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? uint8(28) : uint8(27)));
        vm.expectRevert(abi.encodeWithSelector(SignatureV.selector, v - 27));
        ledger.bindDevice(b, abi.encodePacked(r, s, v - 27));
        vm.expectRevert(abi.encodeWithSelector(SignatureLength.selector, 64));
        ledger.bindDevice(b, abi.encodePacked(r, s));
        vm.expectRevert(abi.encodeWithSelector(SignatureInvalid.selector));
        ledger.bindDevice(b, abi.encodePacked(bytes32(0), s, v));
    }
}
