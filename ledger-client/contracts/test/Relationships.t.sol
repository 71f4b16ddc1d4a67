// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SiteTest} from "./Site.sol";

/// @dev Grants, revocations, rotation and recovery.
contract RelationshipsTest is SiteTest {
    function test_a_grant_holds_from_its_first_to_its_last_second() public {
        grant(1);
        bytes32 id = relationship();
        require(!ledger.consentHolds(id, BEGIN - 1) && ledger.consentHolds(id, BEGIN));
        require(ledger.consentHolds(id, BEGIN + 30 days - 1) && !ledger.consentHolds(id, BEGIN + 30 days));
        equal(ledger.epoch(), 1, "epoch");
    }

    function test_every_grant_ends() public {
        Grant memory g = grantOf(1);
        g.until = g.from + 3661 days;
        bytes memory signature = sign(GRANT_KEY, ledger.grantDigest(g));
        vm.expectRevert(abi.encodeWithSelector(GrantTooLong.selector, 3661 days));
        ledger.grant(g, vm.addr(REVOKE_KEY), signature);
        g.until = type(uint64).max;
        signature = sign(GRANT_KEY, ledger.grantDigest(g));
        vm.expectRevert(abi.encodeWithSelector(GrantTooLong.selector, type(uint64).max - g.from));
        ledger.grant(g, vm.addr(REVOKE_KEY), signature);
        g.until = g.from + 3660 days;
        grantAs(GRANT_KEY, vm.addr(REVOKE_KEY), g);
    }

    /// @dev Whoever relays, whatever was granted, a signature of another key grants nothing.
    function testFuzz_only_the_grant_key_grants(uint256 key, address relay, Grant memory g) public {
        key = 1 + key % type(uint128).max;
        vm.assume(key != GRANT_KEY);
        g.relationship = relationship();
        bytes memory signature = sign(key, ledger.grantDigest(g));
        vm.prank(relay);
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(key)));
        ledger.grant(g, vm.addr(REVOKE_KEY), signature);
    }

    /// @dev Each bit of a signature and each field counts.
    function testFuzz_a_signature_is_for_one_grant_alone(uint256 bit, uint64 until) public {
        Grant memory g = grantOf(1);
        bytes memory signature = sign(GRANT_KEY, ledger.grantDigest(g));
        bytes memory forged = bytes.concat(signature);
        forged[(bit / 8) % 65] ^= bytes1(uint8(1 << (bit % 8)));
        (bool done,) = address(ledger).call(abi.encodeCall(ledger.grant, (g, vm.addr(REVOKE_KEY), forged)));
        require(!done, "a forged signature");
        vm.assume(until != g.until);
        g.until = until;
        (done,) = address(ledger).call(abi.encodeCall(ledger.grant, (g, vm.addr(REVOKE_KEY), signature)));
        require(!done, "another grant");
    }

    function test_a_signature_is_for_one_chain_and_contract() public {
        Grant memory g = grantOf(1);
        bytes memory signature = sign(GRANT_KEY, ledger.grantDigest(g));
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        (bool done,) = address(ledger).call(abi.encodeCall(ledger.grant, (g, vm.addr(REVOKE_KEY), signature)));
        require(!done, "another chain");
        vm.chainId(here);
        ledger.grant(g, vm.addr(REVOKE_KEY), signature);
    }

    function testFuzz_versions_rise(uint64 first, uint64 second) public {
        vm.assume(first != 0);
        grant(first);
        Grant memory g = grantOf(second);
        bytes memory signature = sign(GRANT_KEY, ledger.grantDigest(g));
        if (second <= first) vm.expectRevert(abi.encodeWithSelector(VersionNotRaised.selector, second, first));
        ledger.grant(g, vm.addr(REVOKE_KEY), signature);
    }

    /// @dev In any order, as often as one likes, by either key: the highest counts, and nothing fails.
    function testFuzz_revocation_always_succeeds(uint64[8] memory versions, bool byRevokeKey) public {
        grant(1);
        uint64 highest = 0;
        for (uint256 i = 0; i < versions.length; i++) {
            uint64 version = versions[i] == 0 ? 1 : versions[i];
            Revocation memory r = Revocation(relationship(), version);
            bytes memory signature = sign(byRevokeKey ? REVOKE_KEY : GRANT_KEY, ledger.revocationDigest(r));
            uint64 epoch = ledger.epoch();
            ledger.revoke(r, vm.addr(byRevokeKey ? GRANT_KEY : REVOKE_KEY), byRevokeKey, signature);
            equal(ledger.epoch(), version > highest ? epoch + 1 : epoch, "epoch");
            if (version > highest) highest = version;
        }
        (,,,,,,, uint64 revoked) = ledger.consents(relationship());
        equal(revoked, highest, "revoked");
        require(!ledger.consentHolds(relationship(), BEGIN), "a revoked grant holds");
    }

    function test_the_revoke_only_key_cannot_grant() public {
        Grant memory g = grantOf(1);
        bytes memory signature = sign(REVOKE_KEY, ledger.grantDigest(g));
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(REVOKE_KEY)));
        ledger.grant(g, vm.addr(GRANT_KEY), signature);
    }

    function test_rotated_keys_take_over_and_the_old_ones_can_only_revoke() public {
        grant(1);
        rotate();
        require(ledger.consentHolds(relationship(), BEGIN), "what was granted goes on");
        Grant memory g = grantOf(2);
        bytes memory signature = sign(GRANT_KEY, ledger.grantDigest(g));
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(GRANT_KEY)));
        ledger.grant(g, vm.addr(REVOKE_KEY), signature);
        grantAs(NEXT_GRANT_KEY, vm.addr(NEXT_REVOKE_KEY), g);
        revoke(2);
        require(!ledger.consentHolds(relationship(), BEGIN), "the first revoke-only key is the gateway's button");
        Revocation memory r = Revocation(relationship(), 3);
        ledger.revoke(r, vm.addr(NEXT_GRANT_KEY), true, sign(NEXT_REVOKE_KEY, ledger.revocationDigest(r)));
        r.version = 4;
        signature = sign(STRANGER_KEY, ledger.revocationDigest(r));
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(STRANGER_KEY)));
        ledger.revoke(r, vm.addr(NEXT_GRANT_KEY), true, signature);
    }

    function test_a_rotation_is_not_used_twice() public {
        KeyRotation memory r = rotationTo(NEXT_GRANT_KEY, NEXT_REVOKE_KEY, 1);
        bytes memory signature = sign(GRANT_KEY, ledger.rotationDigest(r));
        ledger.rotateKeys(r, vm.addr(REVOKE_KEY), signature);
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(GRANT_KEY)));
        ledger.rotateKeys(r, vm.addr(REVOKE_KEY), signature);
        signature = sign(NEXT_GRANT_KEY, ledger.rotationDigest(r));
        vm.expectRevert(abi.encodeWithSelector(VersionNotNext.selector, 1, 1));
        ledger.rotateKeys(r, vm.addr(NEXT_REVOKE_KEY), signature);
    }

    function test_keys_are_two_and_somebodys() public {
        KeyRotation memory r = KeyRotation(relationship(), vm.addr(NEXT_GRANT_KEY), vm.addr(NEXT_GRANT_KEY), 1);
        bytes memory signature = sign(GRANT_KEY, ledger.rotationDigest(r));
        vm.expectRevert(abi.encodeWithSelector(SameKey.selector, vm.addr(NEXT_GRANT_KEY)));
        ledger.rotateKeys(r, vm.addr(REVOKE_KEY), signature);
        r.revokeKey = address(0);
        signature = sign(GRANT_KEY, ledger.rotationDigest(r));
        vm.expectRevert(abi.encodeWithSelector(ZeroAddress.selector));
        ledger.rotateKeys(r, vm.addr(REVOKE_KEY), signature);
    }

    function test_custodians_recover_after_the_delay() public {
        grant(1);
        setCustodians(1 days, 1);
        KeyRecovery memory r = recovery();
        ledger.recoverKeys(r, custodians(1 days), signaturesOf(r, 2));
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, BEGIN + 1 days));
        ledger.completeRecovery(r);
        bytes[] memory signatures = signaturesOf(r, 3);
        vm.expectRevert(abi.encodeWithSelector(RecoveryWaits.selector, BEGIN + 1 days));
        ledger.recoverKeys(r, custodians(1 days), signatures);
        vm.warp(BEGIN + 1 days);
        ledger.completeRecovery(r);
        grantAs(NEXT_GRANT_KEY, vm.addr(NEXT_REVOKE_KEY), grantOf(2));
        vm.expectRevert(abi.encodeWithSelector(NoSuchRecovery.selector));
        ledger.completeRecovery(r);
    }

    function test_a_recovery_without_delay_is_done_at_once() public {
        setCustodians(0, 1);
        KeyRecovery memory r = recovery();
        ledger.recoverKeys(r, custodians(0), signaturesOf(r, 2));
        grantAs(NEXT_GRANT_KEY, vm.addr(NEXT_REVOKE_KEY), grantOf(1));
    }

    /// @dev By naming custodians again, or by rotating: whoever still has the key is heard before who says that it is lost.
    function test_the_patient_stops_a_recovery() public {
        setCustodians(1 days, 1);
        KeyRecovery memory r = recovery();
        ledger.recoverKeys(r, custodians(1 days), signaturesOf(r, 2));
        setCustodians(1 days, 2);
        vm.warp(BEGIN + 1 days);
        vm.expectRevert(abi.encodeWithSelector(NoSuchRecovery.selector));
        ledger.completeRecovery(r);
        ledger.recoverKeys(r, custodians(1 days), signaturesOf(r, 2));
        rotate();
        vm.warp(BEGIN + 3 days);
        vm.expectRevert(abi.encodeWithSelector(VersionNotNext.selector, 1, 1));
        ledger.completeRecovery(r);
    }

    function test_too_few_custodians_or_others_recover_nothing() public {
        setCustodians(0, 1);
        KeyRecovery memory r = recovery();
        bytes[] memory signatures = signaturesOf(r, 1);
        vm.expectRevert(abi.encodeWithSelector(TooFewSignatures.selector, 1, 2));
        ledger.recoverKeys(r, custodians(0), signatures);
        signatures = signaturesOf(r, 2);
        signatures[2] = signatures[1];
        uint256[3] memory keys = custodianKeys();
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(keys[1])));
        ledger.recoverKeys(r, custodians(0), signatures);
        Custodians memory others = custodians(0);
        others.threshold = 1;
        bytes32 known = ledger.custodiansCommitment(custodians(0));
        bytes32 forged = ledger.custodiansCommitment(others);
        vm.expectRevert(abi.encodeWithSelector(NotTheCustodians.selector, forged, known));
        ledger.recoverKeys(r, others, signatures);
    }

    function test_nobody_recovers_where_nobody_was_named() public {
        KeyRecovery memory r = recovery();
        bytes[] memory signatures = signaturesOf(r, 3);
        bytes32 forged = ledger.custodiansCommitment(custodians(0));
        vm.expectRevert(abi.encodeWithSelector(NotTheCustodians.selector, forged, bytes32(0)));
        ledger.recoverKeys(r, custodians(0), signatures);
    }

    /// @dev Commitments that no recovery can open are refused there, and the patient can name others.
    function test_malformed_custodians_recover_nothing() public {
        Custodians memory c = custodians(0);
        (c.keys[0], c.keys[1]) = (c.keys[1], c.keys[0]);
        Custody memory custody = Custody(relationship(), ledger.custodiansCommitment(c), 1);
        ledger.setCustodians(custody, vm.addr(REVOKE_KEY), sign(GRANT_KEY, ledger.custodyDigest(custody)));
        KeyRecovery memory r = recovery();
        bytes[] memory signatures = new bytes[](3);
        vm.expectRevert(abi.encodeWithSelector(CustodiansMalformed.selector));
        ledger.recoverKeys(r, c, signatures);
        setCustodians(0, 2);
        ledger.recoverKeys(r, custodians(0), signaturesOf(r, 2));
    }

    function testFuzz_only_the_grant_key_names_custodians_or_successors(uint256 key) public {
        key = 1 + key % type(uint128).max;
        vm.assume(key != GRANT_KEY);
        Custody memory c = Custody(relationship(), SALT, 1);
        bytes memory signature = sign(key, ledger.custodyDigest(c));
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(key)));
        ledger.setCustodians(c, vm.addr(REVOKE_KEY), signature);
        KeyRotation memory r = rotationTo(NEXT_GRANT_KEY, NEXT_REVOKE_KEY, 1);
        signature = sign(key, ledger.rotationDigest(r));
        vm.expectRevert(abi.encodeWithSelector(WrongSigner.selector, vm.addr(key)));
        ledger.rotateKeys(r, vm.addr(REVOKE_KEY), signature);
    }
}
