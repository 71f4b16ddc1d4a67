// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Handler} from "./Handler.sol";
import {SiteTest} from "./Site.sol";

/// @dev What holds whatever anybody does, in any order.
contract InvariantsTest is SiteTest {
    Handler private handler;

    function setUp() public override {
        super.setUp();
        handler = new Handler(ledger);
    }

    /// @dev forge asks: only the handler is called.
    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    function invariant_whatever_anybody_does() public view {
        nobody_does_what_they_may_not();
        the_epoch_counts_every_change();
        versions_are_the_highest_that_were_signed();
        a_consent_holds_as_it_was_granted_and_not_when_revoked();
        every_grant_ends();
        the_keys_are_those_that_were_handed_on();
        an_emergency_is_bounded();
        devices_are_bound_as_their_homes_said_last();
        a_participants_key_is_the_one_it_set_last();
        anchors_have_no_gap();
        the_council_can_decide();
    }

    function nobody_does_what_they_may_not() private view {
        require(bytes(handler.broken()).length == 0, handler.broken());
    }

    function the_epoch_counts_every_change() private view {
        equal(ledger.epoch(), handler.changes(), "epoch");
    }

    function versions_are_the_highest_that_were_signed() private view {
        (,,,,,, uint64 version, uint64 revoked) = ledger.consents(relationship());
        equal(version, handler.granted(), "granted");
        equal(revoked, handler.revoked(), "revoked");
    }

    /// @dev By the calls that went through, not by what the contract says of itself.
    function a_consent_holds_as_it_was_granted_and_not_when_revoked() private view {
        bool given = handler.granted() > handler.revoked();
        uint64[3] memory times = [uint64(block.timestamp), BEGIN, handler.until()];
        for (uint256 i = 0; i < 3; i++) {
            bool holds = given && handler.from() <= times[i] && times[i] < handler.until();
            require(ledger.consentHolds(relationship(), times[i]) == holds, "a consent");
        }
    }

    function every_grant_ends() private view {
        (address grantee, uint32 classes, uint32 purposes,, uint64 from, uint64 until, uint64 version,) =
            ledger.consents(relationship());
        if (version == 0) return;
        require(from < until && until - from <= 3660 days && grantee != address(0) && classes != 0 && purposes != 0);
    }

    function the_keys_are_those_that_were_handed_on() private view {
        (address grantKey, uint64 version, address revokeKey) = ledger.relationshipKeys(relationship());
        if (version == 0) return;
        require(grantKey == vm.addr(handler.grantKey()) && revokeKey == vm.addr(handler.revokeKey()), "keys");
    }

    function an_emergency_is_bounded() private view {
        bytes32 key = ledger.emergencyKey(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY));
        (,, uint64 from, uint64 until, uint64 number, bool reviewed) = ledger.emergencies(key);
        equal(number, handler.emergencies(), "emergencies");
        require(reviewed == handler.reviewed(), "reviewed");
        require(number == 0 || (from < until && until - from <= 4 hours), "times");
    }

    function devices_are_bound_as_their_homes_said_last() private view {
        uint256[5] memory keys = [GRANT_KEY, REVOKE_KEY, NEXT_GRANT_KEY, NEXT_REVOKE_KEY, STRANGER_KEY];
        for (uint256 i = 0; i < 5; i++) {
            address home = vm.addr(keys[i]);
            (uint64 version, bool bound) = ledger.bindings(ledger.bindingKey(home, SALT));
            equal(version, handler.bindingVersions(home), "a binding");
            require(bound == handler.bound(home), "bound");
        }
    }

    function a_participants_key_is_the_one_it_set_last() private view {
        (bytes32 hpkeKey, uint64 version,,,) = ledger.participants(vm.addr(HOSPITAL_KEY));
        require(hpkeKey == handler.hpkeKey() && version == handler.keyVersion(), "a participant's key");
    }

    function anchors_have_no_gap() private view {
        (bytes32 root, uint64 last, uint64 anchors) = ledger.auditLogs(vm.addr(LOG_KEY));
        require(last == handler.anchored() && anchors == handler.anchors() && (last == 0) == (root == 0), "the log");
    }

    function the_council_can_decide() private view {
        (uint64 version, uint64 delayS, uint8 threshold) = ledger.council();
        equal(version, handler.councilVersion(), "the council's version");
        require(threshold == handler.threshold() && delayS == handler.delayS(), "what was decided of the council");
        address[] memory list = ledger.governors();
        require(threshold != 0 && threshold <= list.length && delayS <= 30 days, "council");
        for (uint256 i = 0; i < list.length; i++) {
            equal(ledger.governorSeats(list[i]), i + 1, "seat");
        }
    }
}
