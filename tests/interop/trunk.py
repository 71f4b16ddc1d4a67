"""A host on a trunk: asks by ARP who has an address, in frames with an 802.1Q tag, and says in which VLAN the answer came.

Arguments: interface, VLAN id, address asked for. Prints the answer's VLAN id, `untagged`, or `silence` after two seconds.
A packet socket and not a VLAN device, which not every kernel has.
"""

import socket
import struct
import sys
import time

SOL_PACKET, PACKET_AUXDATA, ETH_P_ALL, VLAN_VALID = 263, 8, 3, 0x10
OWN_ADDRESS = "10.77.0.4"
SECONDS = 2.0


def vlan_of(frame, ancillary):
    """The kernel takes the tag out of the frame and tells it beside."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, tci = struct.unpack_from("=I", data)[0], struct.unpack_from("=H", data, 16)[0]
            if status & VLAN_VALID:
                return tci & 0xfff, frame[12:]
    if frame[12:14] == b"\x81\x00":
        return struct.unpack("!H", frame[14:16])[0] & 0xfff, frame[16:]
    return "untagged", frame[12:]


def main():
    interface, vlan, asked = sys.argv[1], int(sys.argv[2]), socket.inet_aton(sys.argv[3])
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((interface, ETH_P_ALL))
    mac = wire.getsockname()[4]
    question = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, mac, socket.inet_aton(OWN_ADDRESS), bytes(6), asked)
    frame = b"\xff" * 6 + mac + struct.pack("!HHH", 0x8100, vlan, 0x806) + question
    wire.send(frame + bytes(64 - len(frame)))
    end = time.monotonic() + SECONDS
    while (left := end - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            got, ancillary, _, _ = wire.recvmsg(2048, 256)
        except TimeoutError:
            break
        if got[:6] != mac:
            continue
        vid, payload = vlan_of(got, ancillary)
        if payload[:2] == b"\x08\x06" and payload[8:10] == b"\x00\x02" and payload[16:20] == asked:
            print(vid)
            return
    print("silence")


if __name__ == "__main__":
    main()
