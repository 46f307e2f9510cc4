"""bpf(2) as far as programs of cgroups need it: thin, typed functions that decide nothing and raise OSError.

Descriptors returned are close-on-exec (the kernel makes them so) and the caller's to close.
Sources: bpf(2); include/uapi/linux/bpf.h, union bpf_attr and struct bpf_prog_info.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

from controller.frozen import dataclass

_CALLS: Final = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351, "mips64": 5315}
_CALL: Final = _CALLS.get(os.uname().machine, 280)
"""280: arm64, riscv64 and all younger ones (include/uapi/asm-generic/unistd.h)."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO, _PROG_QUERY = 5, 8, 9, 13, 15, 16
_CGROUP_DEVICE_PROGRAM: Final = 15  # BPF_PROG_TYPE_CGROUP_DEVICE
_CGROUP_DEVICE: Final = 6  # BPF_CGROUP_DEVICE, the place to attach to
_ALLOW_MULTI: Final = 2
_MOST: Final = 64
"""Programs at one place of one cgroup: BPF_CGROUP_MAX_PROGS."""
_INFO_SIZE: Final = 80
_INFO: Final = struct.Struct("=8x8s48x16s")
"""As far as it is of use: the tag after type and id, and the name."""
_LICENSE: Final = b"Apache-2.0"


def load(instructions: bytes, name: str) -> int:
    """A descriptor of a device program. EPERM: not permitted, or no locked memory left (before Linux 5.11)."""
    code, license_ = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(_LICENSE)
    where, whose = ctypes.addressof(code), ctypes.addressof(license_)
    count = len(instructions) // 8
    attributes = struct.pack(
        "=IIQQIIQII16s", _CGROUP_DEVICE_PROGRAM, count, where, whose, 0, 0, 0, 0, 0, name.encode()
    )
    return _bpf(_PROG_LOAD, attributes)[0]


def attach(cgroup: int, program: int) -> None:
    """Beside those that are there: what one of them refuses is refused."""
    _bpf(_PROG_ATTACH, struct.pack("=IIII", cgroup, program, _CGROUP_DEVICE, _ALLOW_MULTI))


def detach(cgroup: int, program: int) -> None:
    _bpf(_PROG_DETACH, struct.pack("=IIII", cgroup, program, _CGROUP_DEVICE, 0))


def attached(cgroup: int) -> tuple[int, ...]:
    """Ids of the device programs of this cgroup itself."""
    ids = (ctypes.c_uint32 * _MOST)()
    shape = "=IIIIQII"
    asked = struct.pack(shape, cgroup, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MOST, 0)
    count = struct.unpack(shape, _bpf(_PROG_QUERY, asked)[1])[5]
    return tuple(ids[:count])


def opened(number: int) -> int | None:
    """A descriptor of the program with this id; None when it is gone."""
    try:
        return _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))[0]
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


@dataclass(frozen=True, slots=True)
class Identity:
    """The name is whoever's who loaded the program; the tag is the kernel's own hash of its instructions."""

    name: str
    tag: bytes


def identity_of(program: int) -> Identity:
    info = ctypes.create_string_buffer(_INFO_SIZE)
    _bpf(_OBJ_GET_INFO, struct.pack("=IIQ", program, _INFO_SIZE, ctypes.addressof(info)))
    tag, name = _INFO.unpack_from(info.raw)
    return Identity(name.partition(b"\0")[0].decode(errors="replace"), tag)


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """(result, the attributes as the kernel left them)."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    size = ctypes.c_long(len(attributes))
    result = _LIBC.syscall(ctypes.c_long(_CALL), ctypes.c_long(command), buffer, size)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, buffer.raw
