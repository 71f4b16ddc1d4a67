// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Caregate} from "../src/Caregate.sol";
import {ICaregate} from "../src/ICaregate.sol";
import {Vm} from "./Vm.sol";

/// @dev Keys for everybody, and what they sign for a contract.
abstract contract Site is ICaregate {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant GRANT_KEY = 0x101;
    uint256 internal constant REVOKE_KEY = 0x102;
    uint256 internal constant NEXT_GRANT_KEY = 0x103;
    uint256 internal constant NEXT_REVOKE_KEY = 0x104;
    uint256 internal constant HOME_KEY = 0x105;
    uint256 internal constant HOSPITAL_KEY = 0x106;
    uint256 internal constant LOG_KEY = 0x107;
    uint256 internal constant STRANGER_KEY = 0x108;
    uint64 internal constant BEGIN = 1_800_000_000;
    uint64 internal constant DELAY_S = 2 days;
    bytes32 internal constant SALT = keccak256("salt");

    Caregate internal ledger;
    /// @dev Five, of whom three are needed. In the order of their seats.
    uint256[5] internal governorKeys = [uint256(0x201), 0x202, 0x203, 0x204, 0x205];

    function governorsOf(uint256 n) internal view returns (address[] memory list) {
        list = new address[](n);
        for (uint256 i = 0; i < n; i++) {
            list[i] = vm.addr(governorKeys[i]);
        }
    }

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function relationship() internal view returns (bytes32) {
        return ledger.relationshipOf(vm.addr(GRANT_KEY), vm.addr(REVOKE_KEY));
    }

    function grantOf(uint64 version) internal view returns (Grant memory) {
        return Grant(relationship(), vm.addr(HOSPITAL_KEY), 3, 1, BEGIN, BEGIN + 30 days, 3600, version);
    }

    function grantAs(uint256 key, address revokeKey, Grant memory g) internal {
        ledger.grant(g, revokeKey, sign(key, ledger.grantDigest(g)));
    }

    function grant(uint64 version) internal {
        grantAs(GRANT_KEY, vm.addr(REVOKE_KEY), grantOf(version));
    }

    /// @dev By the revoke-only key.
    function revoke(uint64 version) internal {
        Revocation memory r = Revocation(relationship(), version);
        ledger.revoke(r, vm.addr(GRANT_KEY), true, sign(REVOKE_KEY, ledger.revocationDigest(r)));
    }

    function rotationTo(uint256 grantKey, uint256 revokeKey, uint64 version) internal view returns (KeyRotation memory) {
        return KeyRotation(relationship(), vm.addr(grantKey), vm.addr(revokeKey), version);
    }

    function rotate() internal {
        KeyRotation memory r = rotationTo(NEXT_GRANT_KEY, NEXT_REVOKE_KEY, 1);
        ledger.rotateKeys(r, vm.addr(REVOKE_KEY), sign(GRANT_KEY, ledger.rotationDigest(r)));
    }

    function hospital(uint8 status, bool emergency, uint64 version) internal pure returns (ParticipantChange memory) {
        return ParticipantChange(vm.addr(HOSPITAL_KEY), status, 1, emergency, version);
    }

    function approve(uint256 seat, ParticipantChange memory c) internal {
        ledger.approveParticipant(c, sign(governorKeys[seat], ledger.participantChangeDigest(c)));
    }

    /// @dev Three governors and the delay.
    function register(bool emergency) internal {
        ParticipantChange memory c = hospital(1, emergency, ledger.participantVersions(vm.addr(HOSPITAL_KEY)) + 1);
        for (uint256 seat = 0; seat < 3; seat++) {
            approve(seat, c);
        }
        (,, uint8 status,, bool known) = ledger.participants(vm.addr(HOSPITAL_KEY));
        if (status == 1 && known == emergency) return;
        vm.warp(block.timestamp + DELAY_S);
        ledger.applyParticipant(c);
    }

    function emergencyOf(uint64 number) internal view returns (Emergency memory) {
        uint64 now_ = uint64(block.timestamp);
        return Emergency(keccak256("pseudonym"), vm.addr(HOSPITAL_KEY), SALT, SALT, now_, now_ + 1 hours, number);
    }

    function openEmergency(Emergency memory e) internal {
        ledger.openEmergency(e, sign(HOSPITAL_KEY, ledger.emergencyDigest(e)));
    }

    function anchor(uint64 first, uint64 last) internal {
        Anchor memory a = Anchor(vm.addr(LOG_KEY), first, last, keccak256(abi.encode(first, last)));
        ledger.anchor(a, sign(LOG_KEY, ledger.anchorDigest(a)));
    }

    /// @dev Three keys, rising by address.
    function custodianKeys() internal pure returns (uint256[3] memory keys) {
        keys = [uint256(0x301), 0x302, 0x303];
        for (uint256 i = 0; i < 3; i++) {
            for (uint256 j = i + 1; j < 3; j++) {
                if (vm.addr(keys[j]) < vm.addr(keys[i])) (keys[i], keys[j]) = (keys[j], keys[i]);
            }
        }
    }

    /// @dev Two of the three.
    function custodians(uint64 delayS) internal pure returns (Custodians memory c) {
        uint256[3] memory keys = custodianKeys();
        address[] memory list = new address[](3);
        for (uint256 i = 0; i < 3; i++) {
            list[i] = vm.addr(keys[i]);
        }
        return Custodians(2, delayS, SALT, list);
    }

    function setCustodians(uint64 delayS, uint64 version) internal {
        Custody memory c = Custody(relationship(), ledger.custodiansCommitment(custodians(delayS)), version);
        ledger.setCustodians(c, vm.addr(REVOKE_KEY), sign(GRANT_KEY, ledger.custodyDigest(c)));
    }

    function recovery() internal view returns (KeyRecovery memory) {
        return KeyRecovery(relationship(), vm.addr(NEXT_GRANT_KEY), vm.addr(NEXT_REVOKE_KEY), 1);
    }

    /// @dev The first `n` custodians sign.
    function signaturesOf(KeyRecovery memory r, uint256 n) internal view returns (bytes[] memory signatures) {
        uint256[3] memory keys = custodianKeys();
        signatures = new bytes[](3);
        for (uint256 i = 0; i < n; i++) {
            signatures[i] = sign(keys[i], ledger.recoveryDigest(r));
        }
    }

    function equal(uint256 is_, uint256 wanted, string memory what) internal pure {
        require(is_ == wanted, string.concat(what, ": ", vm.toString(is_), " instead of ", vm.toString(wanted)));
    }
}

/// @dev A test with a contract of its own.
abstract contract SiteTest is Site {
    function setUp() public virtual {
        vm.warp(BEGIN);
        ledger = new Caregate(governorsOf(5), 3, DELAY_S);
    }
}
