"""Runs one Python file that must not be trusted: limits first, then the file, in this process.

`python -I -S confinement.py SECONDS BYTES FILE`. The file gets no sockets, no further processes, no signals to others
(seccomp), no writing to any file (Landlock), and limited time, memory and file size. It may still read what its user
may, and has nowhere to send it. Linux 5.13 or newer; exits with `UNCONFINED` before the file runs if anything fails.
Standard library only, since it is run as a script.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys

UNCONFINED = 125
"""Exit code when the file was not run because it could not be confined."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
# Everything that changes a file system: write, remove, make (bits 1 and 4 to 12), refer and truncate of later kernels.
_LANDLOCK_WRITES, _LANDLOCK_REFER, _LANDLOCK_TRUNCATE = 0b1_1111_1111_0010, 1 << 13, 1 << 14

# Instructions of classic BPF, and where a filter finds number, architecture and first argument of a system call.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_CLONE_THREAD = 0x0001_0000
_X32_BIT = 0x4000_0000

# Numbers of: socket, fork, vfork, kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal,
# io_uring_setup, and the chmod and chown family, which Landlock leaves alone. clone and clone3 are apart: threads pass.
_MACHINES = {
    "x86_64": (
        0xC000_003E, 56,
        (41, 57, 58, 62, 200, 234, 129, 297, 424, 425, 90, 91, 92, 93, 94, 260, 268, 452),
    ),
    "aarch64": (0xC000_00B7, 220, (198, 129, 130, 131, 138, 240, 424, 425, 52, 53, 54, 55, 452)),
}  # fmt: skip
_CLONE3 = 435

Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def seccomp_filter(machine: str) -> list[Instruction]:
    """Returns the filter's instructions as (code, jump if true, jump if false, operand).

    Raises:
        OSError: this processor's system calls are not known here.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    architecture, clone, refused = _MACHINES[machine]
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    instructions: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32_BIT),
        refuse,
    ]
    for number in refused:
        instructions += [(_IF_EQUAL, 0, 1, number), refuse]
    # A library that is told there is no clone3 makes its threads with clone, whose flags a filter can see.
    instructions += [(_IF_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    instructions += [(_IF_EQUAL, 0, 3, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_IF_ANY_BIT, 1, 0, _CLONE_THREAD)]
    return [*instructions, refuse, (_RETURN, 0, 0, _ALLOW)]


def confine(*, seconds: int, num_bytes: int) -> None:
    """Limits this process for good.

    Args:
        seconds: of processor time.
        num_bytes: of address space.

    Raises:
        OSError: the kernel cannot.
    """
    for limit, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, num_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    version = _check(libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    handled = _LANDLOCK_WRITES | (_LANDLOCK_REFER if version >= 2 else 0) | (_LANDLOCK_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=Q", handled)
    ruleset = _check(libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    _check(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in seccomp_filter(platform.machine()))
    program = _Program(len(code) // 8, code)
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))


def main(argv: list[str]) -> None:
    """Confines this process and becomes the file's."""
    seconds, num_bytes, file = argv
    try:
        confine(seconds=int(seconds), num_bytes=int(num_bytes))
    except (OSError, AttributeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(UNCONFINED)
    os.execv(sys.executable, [sys.executable, "-I", "-S", file])


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
