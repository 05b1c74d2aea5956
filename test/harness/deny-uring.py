"""Runs a command in which io_uring is denied, as container runtimes do.

usage: deny-uring.py ERRNO COMMAND...     ERRNO: EPERM (seccomp profiles) or ENOSYS (old kernels, gVisor)

A seccomp filter (seccomp(2)) answers io_uring_setup, io_uring_enter and io_uring_register, whose
numbers (425 to 427) are the same on every architecture, with the errno; everything else is allowed.
"""
import ctypes
import errno
import os
import struct
import sys

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
LOAD_WORD, JUMP_IF_GREATER_OR_EQUAL, RETURN = 0x20, 0x35, 0x06
URING_FIRST, AFTER_URING = 425, 428


def instruction(code, jump_true, jump_false, value):
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def main():
    number = getattr(errno, sys.argv[1])
    program = b"".join([
        instruction(LOAD_WORD, 0, 0, 0),  # the system call's number, first in struct seccomp_data
        instruction(JUMP_IF_GREATER_OR_EQUAL, 0, 2, URING_FIRST),
        instruction(JUMP_IF_GREATER_OR_EQUAL, 1, 0, AFTER_URING),
        instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | number),
        instruction(RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ])
    text = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_NO_NEW_PRIVS): {os.strerror(ctypes.get_errno())}")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_SECCOMP): {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])


main()
