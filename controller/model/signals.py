"""Signal names and numbers of Linux on x86 and arm (signal(7)), without asking the operating system."""

from __future__ import annotations

_NAMES = (
    *(
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
    ),
    *(
        "TERM",
        "STKFLT",
        "CHLD",
        "CONT",
        "STOP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "XCPU",
        "XFSZ",
        "VTALRM",
        "PROF",
    ),
    *("WINCH", "IO", "PWR", "SYS"),
)
NUMBERS = {name: number for number, name in enumerate(_NAMES, start=1)}


def signal_number(text: str | int) -> int:
    """Names and numbers alike: "TERM", "SIGTERM", "RTMIN+3" or 15 → 15. Raises ValueError."""
    word = str(text).upper().removeprefix("SIG")
    if word.isdigit() and 1 <= int(word) <= 64:
        return int(word)
    if word.startswith("RTMIN"):
        return 34 + int(word.removeprefix("RTMIN") or 0)
    if word not in NUMBERS:
        raise ValueError(f"{text!r} is not a signal: use TERM, INT, HUP, KILL, USR1, …")
    return NUMBERS[word]
