"""The rules about devices as a BPF program for cgroup v2, put together instruction by instruction. Pure.

The kernel runs it at each attempt to open or make a device node, and refuses unless it returns 1.
Sources: Documentation/bpf/standardization/instruction-set.rst; linux/bpf.h, struct bpf_cgroup_dev_ctx.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from controller.model.device import ANY, RIGHTS, Rule, Rules

INSTRUCTION: Final = struct.Struct("=BBhi")
"""Code, registers (the source in the upper four bits, on a little-endian machine), how far to jump, constant."""
PREFIX: Final = "masu_"
_LAYOUT: Final = "1"
"""Part of the name, so that a version of masu that builds another program puts its own in place."""

_LOAD_WORD: Final = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE: Final = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_SET: Final = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND: Final = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_SHIFT_RIGHT: Final = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_JUMP_UNLESS: Final = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT: Final = 0x95  # BPF_JMP | BPF_EXIT

_RESULT, _CONTEXT, _KIND, _ASKED, _MAJOR, _MINOR, _REST = range(7)
"""Registers r0 to r6; the kernel hands the context over in r1."""

_KINDS: Final = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_RIGHTS: Final = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, READ, WRITE


def program(rules: Rules) -> bytes:
    """The context is three words: the rights asked for above the kind, in sixteen bits each; major; minor."""
    return b"".join(
        (
            _do(_LOAD_WORD, _KIND, _CONTEXT),
            _do(_MOVE, _ASKED, _KIND),
            _do(_AND, _KIND, value=0xFFFF),
            _do(_SHIFT_RIGHT, _ASKED, value=16),
            _do(_LOAD_WORD, _MAJOR, _CONTEXT, offset=4),
            _do(_LOAD_WORD, _MINOR, _CONTEXT, offset=8),
            *(_allow(each) for each in rules),
            _answer(0),
        )
    )


def program_name(rules: Rules) -> str:
    """Fifteen characters, by which a look can tell whose program it is and which rules it holds."""
    text = "\n".join((_LAYOUT, *map(str, rules)))
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()[:10]


def _allow(rule: Rule) -> bytes:
    """Each test jumps over the rest of the rule's instructions when it fails; after the last: allowed."""
    tests = [(_KIND, _KINDS[rule.kind])]
    tests += [(_MAJOR, rule.major)] if rule.major != ANY else []
    tests += [(_MINOR, rule.minor)] if rule.minor != ANY else []
    more = b"" if rule.access == RIGHTS else _what_is_asked_beyond(rule.access)
    tests += [(_REST, 0)] if more else []
    answer = _answer(1)
    text = answer
    for register, value in reversed(tests):
        text = _do(_JUMP_UNLESS, register, value=value, offset=_length(text)) + text
        if register == _REST:
            text = more + text
    return text


def _what_is_asked_beyond(access: str) -> bytes:
    allowed = sum(_RIGHTS[each] for each in access)
    return _do(_MOVE, _REST, _ASKED) + _do(_AND, _REST, value=0xFFFF & ~allowed)


def _answer(result: int) -> bytes:
    return _do(_SET, _RESULT, value=result) + _do(_EXIT)


def _length(text: bytes) -> int:
    """In instructions."""
    return len(text) // INSTRUCTION.size


def _do(code: int, target: int = 0, source: int = 0, *, offset: int = 0, value: int = 0) -> bytes:
    return INSTRUCTION.pack(code, _registers(target, source), offset, value)


def _registers(target: int, source: int) -> int:
    """Two bit fields of one byte, which compilers lay out by the machine's byte order."""
    return source << 4 | target if _LITTLE else target << 4 | source


_LITTLE: Final = struct.pack("=H", 1) == struct.pack("<H", 1)
