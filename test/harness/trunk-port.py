"""A switch's port where the frames of one VLAN arrive with its tag (IEEE 802.1Q) and all others lead nowhere.

usage: trunk-port.py VLAN TAP OWN-SOCKET MACHINE-SOCKET

TAP is in the VLAN's network, without tags. The machine's frames come and go as datagrams (QEMU's -netdev dgram).
Kernels without the module 8021q cannot do this themselves.
"""
import fcntl
import os
import select
import socket
import struct
import sys

# include/uapi/linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x0002 | 0x1000
FRAME_BYTES_MAX = 65536
ADDRESSES_BYTES, TAG_BYTES = 12, 4
VLAN_TYPE, VLAN_ID_MASK = 0x8100, 0x0FFF


def main():
    vlan, name, own, machine = int(sys.argv[1]), *sys.argv[2:]
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
    port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    port.bind(own)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([tap, port], [], [])
        if port in ready:
            frame = port.recv(FRAME_BYTES_MAX)
            kind, tag = struct.unpack_from("!HH", frame, ADDRESSES_BYTES)
            if kind == VLAN_TYPE and tag & VLAN_ID_MASK == vlan:
                os.write(tap, frame[:ADDRESSES_BYTES] + frame[ADDRESSES_BYTES + TAG_BYTES:])
        if tap in ready:
            frame = os.read(tap, FRAME_BYTES_MAX)
            tag = struct.pack("!HH", VLAN_TYPE, vlan)
            try:
                port.sendto(frame[:ADDRESSES_BYTES] + tag + frame[ADDRESSES_BYTES:], machine)
            except (FileNotFoundError, ConnectionRefusedError):
                pass  # The machine is off.


main()
