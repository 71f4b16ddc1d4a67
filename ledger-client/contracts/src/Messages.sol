// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICaregate} from "./ICaregate.sol";

/// @title What is signed: EIP-712 digests, and who signed them.
abstract contract Messages is ICaregate {
    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant GRANT_TYPE = keccak256(
        "Grant(bytes32 relationship,address grantee,uint32 classes,uint32 purposes,uint64 from,uint64 until,uint32 staleBoundS,uint64 version)"
    );
    bytes32 private constant REVOCATION_TYPE = keccak256("Revocation(bytes32 relationship,uint64 version)");
    bytes32 private constant ROTATION_TYPE =
        keccak256("KeyRotation(bytes32 relationship,address grantKey,address revokeKey,uint64 version)");
    bytes32 private constant CUSTODY_TYPE =
        keccak256("Custody(bytes32 relationship,bytes32 custodians,uint64 version)");
    bytes32 private constant RECOVERY_TYPE =
        keccak256("KeyRecovery(bytes32 relationship,address grantKey,address revokeKey,uint64 version)");
    bytes32 private constant BINDING_TYPE = keccak256("DeviceBinding(bytes32 commitment,bool bound,uint64 version)");
    bytes32 private constant KEY_TYPE = keccak256("ParticipantKey(address participant,bytes32 hpkeKey,uint64 version)");
    bytes32 private constant EMERGENCY_TYPE = keccak256(
        "Emergency(bytes32 pseudonym,address domain,bytes32 clinician,bytes32 reason,uint64 from,uint64 until,uint64 number)"
    );
    bytes32 private constant REVIEW_TYPE =
        keccak256("EmergencyReview(bytes32 pseudonym,address domain,uint64 number)");
    bytes32 private constant ANCHOR_TYPE = keccak256("Anchor(address log,uint64 first,uint64 last,bytes32 root)");
    bytes32 private constant PARTICIPANT_CHANGE_TYPE =
        keccak256("ParticipantChange(address participant,uint8 status,uint8 kind,bool emergency,uint64 version)");
    bytes32 private constant COUNCIL_CHANGE_TYPE =
        keccak256("CouncilChange(address[] governors,uint8 threshold,uint64 delayS,uint64 version)");
    bytes32 private constant OBJECTION_TYPE = keccak256("Objection(bytes32 change)");
    /// @dev Half of secp256k1's group order (EIP-2).
    uint256 private constant S_MAX = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    uint256 private immutable DEPLOYED_CHAIN_ID;
    bytes32 private immutable DEPLOYED_SEPARATOR;

    constructor() {
        DEPLOYED_CHAIN_ID = block.chainid;
        DEPLOYED_SEPARATOR = separator();
    }

    /// @notice EIP-712's domain separator of this contract on this chain.
    function domainSeparator() public view returns (bytes32) {
        return block.chainid == DEPLOYED_CHAIN_ID ? DEPLOYED_SEPARATOR : separator();
    }

    /// @notice EIP-5267: the domain for which messages are signed.
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        )
    {
        return (hex"0f", "Caregate", "1", block.chainid, address(this), bytes32(0), new uint256[](0));
    }

    /// @notice What a grant key signs.
    function grantDigest(Grant calldata g) public view returns (bytes32) {
        return digest(keccak256(abi.encode(GRANT_TYPE, g)));
    }

    /// @notice What a grant key or a revoke-only key signs.
    function revocationDigest(Revocation calldata r) public view returns (bytes32) {
        return digest(keccak256(abi.encode(REVOCATION_TYPE, r)));
    }

    /// @notice What a grant key signs that gives its place to another.
    function rotationDigest(KeyRotation calldata r) public view returns (bytes32) {
        return digest(keccak256(abi.encode(ROTATION_TYPE, r)));
    }

    /// @notice What a grant key signs that names custodians.
    function custodyDigest(Custody calldata c) public view returns (bytes32) {
        return digest(keccak256(abi.encode(CUSTODY_TYPE, c)));
    }

    /// @notice What custodians sign.
    function recoveryDigest(KeyRecovery calldata r) public view returns (bytes32) {
        return digest(keccak256(abi.encode(RECOVERY_TYPE, r)));
    }

    /// @notice What a home key signs.
    function bindingDigest(DeviceBinding calldata b) public view returns (bytes32) {
        return digest(keccak256(abi.encode(BINDING_TYPE, b)));
    }

    /// @notice What a participant signs.
    function participantKeyDigest(ParticipantKey calldata k) public view returns (bytes32) {
        return digest(keccak256(abi.encode(KEY_TYPE, k)));
    }

    /// @notice What a domain signs that breaks the glass.
    function emergencyDigest(Emergency calldata e) public view returns (bytes32) {
        return digest(keccak256(abi.encode(EMERGENCY_TYPE, e)));
    }

    /// @notice What a governor signs who looked at an emergency.
    function reviewDigest(EmergencyReview calldata r) public view returns (bytes32) {
        return digest(keccak256(abi.encode(REVIEW_TYPE, r)));
    }

    /// @notice What a log's key signs.
    function anchorDigest(Anchor calldata a) public view returns (bytes32) {
        return digest(keccak256(abi.encode(ANCHOR_TYPE, a)));
    }

    /// @notice What governors sign who let a domain in, suspend it or change what it is. It names the change.
    function participantChangeDigest(ParticipantChange calldata c) public view returns (bytes32) {
        return digest(keccak256(abi.encode(PARTICIPANT_CHANGE_TYPE, c)));
    }

    /// @notice What governors sign who change who governs. It names the change.
    function councilChangeDigest(CouncilChange calldata c) public view returns (bytes32) {
        bytes32 governors = keccak256(abi.encodePacked(c.governors));
        return digest(keccak256(abi.encode(COUNCIL_CHANGE_TYPE, governors, c.threshold, c.delayS, c.version)));
    }

    /// @notice What a governor signs who is against a change.
    function objectionDigest(Objection calldata o) public view returns (bytes32) {
        return digest(keccak256(abi.encode(OBJECTION_TYPE, o)));
    }

    /// @notice What a patient commits to: these custodians.
    function custodiansCommitment(Custodians calldata c) public pure returns (bytes32) {
        return keccak256(abi.encode(c.threshold, c.delayS, c.salt, keccak256(abi.encodePacked(c.keys))));
    }

    function digest(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domainSeparator(), structHash));
    }

    function separator() private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, keccak256("Caregate"), keccak256("1"), block.chainid, address(this)));
    }

    /// @dev The address that signed, from a signature in its one allowed form.
    function signer(bytes32 hash, bytes calldata signature) internal pure returns (address) {
        require(signature.length == 65, SignatureLength(signature.length));
        uint8 v = uint8(signature[64]);
        require(v == 27 || v == 28, SignatureV(v));
        bytes32 s = bytes32(signature[32:64]);
        require(uint256(s) <= S_MAX, SignatureHighS());
        address recovered = ecrecover(hash, v, bytes32(signature[0:32]), s);
        require(recovered != address(0), SignatureInvalid());
        return recovered;
    }
}
