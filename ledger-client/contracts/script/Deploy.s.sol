// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Caregate} from "../src/Caregate.sol";

/// @dev What the script asks of forge.
interface ScriptVm {
    function envAddress(string calldata name, string calldata delimiter) external view returns (address[] memory);
    function envUint(string calldata name) external view returns (uint256);
    function startBroadcast() external;
    function stopBroadcast() external;
}

/// @title Deploys the contract on a chain that others run: docs/contract.md has the command.
/// @dev `CAREGATE_GOVERNORS` (addresses, with commas between), `CAREGATE_THRESHOLD`, `CAREGATE_DELAY_S`.
contract Deploy {
    ScriptVm private constant vm = ScriptVm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function run() external returns (Caregate ledger) {
        address[] memory governors = vm.envAddress("CAREGATE_GOVERNORS", ",");
        uint256 threshold = vm.envUint("CAREGATE_THRESHOLD");
        uint256 delayS = vm.envUint("CAREGATE_DELAY_S");
        require(threshold <= type(uint8).max && delayS <= type(uint64).max, "a number is too large");
        vm.startBroadcast();
        ledger = new Caregate(governors, uint8(threshold), uint64(delayS));
        vm.stopBroadcast();
    }
}
