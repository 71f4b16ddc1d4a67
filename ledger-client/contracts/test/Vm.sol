// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev What forge's tests may ask of the machine they run on, as far as ours do.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 time) external;
    function chainId(uint256 id) external;
    function assume(bool condition) external pure;
    function expectRevert(bytes calldata data) external;
    function expectEmit() external;
    function prank(address sender) external;
    function load(address target, bytes32 slot) external view returns (bytes32);
    function snapshotGasLastCall(string calldata name) external returns (uint256);
    function snapshotValue(string calldata name, uint256 value) external;
    function toString(uint256 value) external pure returns (string memory);
}
