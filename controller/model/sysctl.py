"""Names of kernel settings. Pure."""

from __future__ import annotations


def sysctl_path(key: str) -> str | None:
    """The file below /proc/sys of a key, or None for one that would lead elsewhere.

    As sysctl(8): dots separate and a slash is a dot within a name, unless the first separator is a slash.
    """
    first = next((each for each in key if each in "./"), ".")
    parts = key.split("/") if first == "/" else [part.replace("/", ".") for part in key.split(".")]
    if any(part in {"", ".", ".."} for part in parts):
        return None
    return "/proc/sys/" + "/".join(parts)
