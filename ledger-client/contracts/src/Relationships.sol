// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CaregateStorage} from "./CaregateStorage.sol";
import {Messages} from "./Messages.sol";

/// @title What patients decide: grants, revocations, and their keys' succession.
/// @dev A relationship is named by the hash of its first two keys, so nobody registers one. Keys can be rotated by the grant key, and
/// recovered by custodians whom the grant key named. Nothing here asks anybody else, and nothing can stop a revocation.
abstract contract Relationships is CaregateStorage, Messages {
    /// @notice A relationship's name: the hash of its first two keys.
    function relationshipOf(address grantKey, address revokeKey) public pure returns (bytes32) {
        return keccak256(abi.encode(grantKey, revokeKey));
    }

    /// @notice Grants. The grantee needs no registration: whether it takes part is asked where access is given.
    /// @param g what the patient signed
    /// @param revokeKey the relationship's revoke-only key
    /// @param signature by the grant key
    function grant(Grant calldata g, address revokeKey, bytes calldata signature) external {
        mustGovern(g.relationship, signer(grantDigest(g), signature), revokeKey);
        require(g.grantee != address(0), ZeroAddress());
        require(g.classes != 0 && g.purposes != 0, EmptyGrant());
        require(g.from < g.until, TimesReversed(g.from, g.until));
        require(g.until - g.from <= GRANT_MAX_S, GrantTooLong(g.until - g.from));
        Consent storage known = consents[g.relationship];
        require(g.version > known.version, VersionNotRaised(g.version, known.version));
        require(g.version > known.revoked, VersionRevoked(g.version, known.revoked));
        known.grantee = g.grantee;
        known.classes = g.classes;
        known.purposes = g.purposes;
        known.staleBoundS = g.staleBoundS;
        known.from = g.from;
        known.until = g.until;
        known.version = g.version;
        epoch++;
        emit Granted(g.relationship, g, signature);
    }

    /// @notice Revokes all grants up to and including `r.version`, also of versions that were never granted. A second time, or of a
    /// version below one that is revoked, it changes nothing and does not fail. The first keys may revoke for good: a gateway's
    /// button works also where it has not heard of a rotation.
    /// @param r what the patient signed
    /// @param otherKey the relationship's key that did not sign
    /// @param byRevokeKey whether the revoke-only key signed, and not the grant key
    /// @param signature by one of the two
    function revoke(Revocation calldata r, address otherKey, bool byRevokeKey, bytes calldata signature) external {
        address recovered = signer(revocationDigest(r), signature);
        bytes32 named = byRevokeKey ? relationshipOf(otherKey, recovered) : relationshipOf(recovered, otherKey);
        if (named != r.relationship) {
            RelationshipKeys storage keys = relationshipKeys[r.relationship];
            require(recovered == (byRevokeKey ? keys.revokeKey : keys.grantKey), WrongSigner(recovered));
        }
        require(r.version != 0, VersionNotRaised(0, 0));
        Consent storage known = consents[r.relationship];
        if (r.version <= known.revoked) return;
        known.revoked = r.version;
        epoch++;
        emit Revoked(r.relationship, r, signature);
    }

    /// @notice Gives a relationship other keys. What was granted goes on.
    /// @param r what the patient signed
    /// @param revokeKey the relationship's revoke-only key so far
    /// @param signature by the grant key so far
    function rotateKeys(KeyRotation calldata r, address revokeKey, bytes calldata signature) external {
        mustGovern(r.relationship, signer(rotationDigest(r), signature), revokeKey);
        setKeys(r.relationship, r.grantKey, r.revokeKey, r.version);
        emit KeysRotated(r.relationship, r, signature);
    }

    /// @notice Says who may recover a relationship; nobody where the commitment is zero. Stops a recovery that waits.
    function setCustodians(Custody calldata c, address revokeKey, bytes calldata signature) external {
        mustGovern(c.relationship, signer(custodyDigest(c), signature), revokeKey);
        CustodianSet storage known = custodianSets[c.relationship];
        require(c.version > known.version, VersionNotRaised(c.version, known.version));
        known.commitment = c.custodians;
        known.version = c.version;
        epoch++;
        emit CustodiansSet(c.relationship, c, signature);
    }

    /// @notice Begins a recovery; with a delay of 0 it is done at once.
    /// @param r what the custodians signed
    /// @param custodians whom the patient named
    /// @param signatures one for each of them, empty where it is missing
    function recoverKeys(KeyRecovery calldata r, Custodians calldata custodians, bytes[] calldata signatures) external {
        CustodianSet storage set = custodianSets[r.relationship];
        bytes32 commitment = custodiansCommitment(custodians);
        require(set.version != 0 && commitment == set.commitment, NotTheCustodians(commitment, set.commitment));
        bytes32 recovery = recoveryDigest(r);
        countCustodians(recovery, custodians, signatures);
        PendingRecovery storage known = pendingRecoveries[r.relationship];
        // slither-disable-next-line timestamp
        require(known.digest != recovery || known.custodyVersion != set.version, RecoveryWaits(known.readyAt)); // a digest, no time
        uint64 readyAt = uint64(block.timestamp) + custodians.delayS;
        emit RecoveryBegun(r.relationship, r, custodians, signatures, readyAt);
        if (custodians.delayS == 0) {
            finishRecovery(r);
        } else {
            require(r.version == relationshipKeys[r.relationship].version + 1, NoSuchRecovery());
            pendingRecoveries[r.relationship] = PendingRecovery(recovery, readyAt, set.version);
            epoch++;
        }
    }

    /// @notice Ends a recovery that has waited and was not stopped. By anybody.
    function completeRecovery(KeyRecovery calldata r) external {
        PendingRecovery storage known = pendingRecoveries[r.relationship];
        // slither-disable-next-line timestamp
        require(
            known.digest == recoveryDigest(r) && known.custodyVersion == custodianSets[r.relationship].version,
            NoSuchRecovery()
        ); // a digest, no time
        // slither-disable-next-line timestamp
        require(known.readyAt <= block.timestamp, TooEarly(known.readyAt)); // the delay is in block time by intent
        finishRecovery(r);
    }

    function finishRecovery(KeyRecovery calldata r) private {
        delete pendingRecoveries[r.relationship];
        setKeys(r.relationship, r.grantKey, r.revokeKey, r.version);
        emit KeysRecovered(r.relationship, r);
    }

    function setKeys(bytes32 relationship, address grantKey, address revokeKey, uint64 version) private {
        require(grantKey != address(0) && revokeKey != address(0), ZeroAddress());
        require(grantKey != revokeKey, SameKey(grantKey));
        RelationshipKeys storage keys = relationshipKeys[relationship];
        require(version == keys.version + 1, VersionNotNext(version, keys.version));
        keys.grantKey = grantKey;
        keys.revokeKey = revokeKey;
        keys.version = version;
        epoch++;
    }

    /// @dev `grantKey` and `revokeKey` are the relationship's now.
    function mustGovern(bytes32 relationship, address grantKey, address revokeKey) private view {
        RelationshipKeys storage keys = relationshipKeys[relationship];
        bool now_ = keys.version == 0
            ? relationshipOf(grantKey, revokeKey) == relationship
            : grantKey == keys.grantKey && revokeKey == keys.revokeKey;
        require(now_, WrongSigner(grantKey));
    }

    /// @dev At most `CUSTODIANS_MAX` turns. Keys rise, so nobody counts twice.
    function countCustodians(bytes32 recovery, Custodians calldata custodians, bytes[] calldata signatures)
        private
        pure
    {
        uint256 members = custodians.keys.length;
        require(
            members != 0 && members <= CUSTODIANS_MAX && signatures.length == members && custodians.threshold != 0
                && custodians.threshold <= members && custodians.delayS <= DELAY_MAX_S,
            CustodiansMalformed()
        );
        uint256 good = 0;
        address before = address(0);
        for (uint256 i = 0; i < members; i++) {
            address key = custodians.keys[i];
            require(key > before, CustodiansMalformed());
            before = key;
            if (signatures[i].length == 0) continue;
            address recovered = signer(recovery, signatures[i]);
            require(recovered == key, WrongSigner(recovered));
            good++;
        }
        require(good >= custodians.threshold, TooFewSignatures(good, custodians.threshold));
    }
}
