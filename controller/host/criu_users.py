"""Whose users a container's are, put right in CRIU's image of its user namespace: other hosts map them otherwise.

CRIU maps those inside as the image says; all other images have the ids that are seen inside.
Source: images/userns.proto.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence

from controller.host.criu_images import rewrite
from controller.host.criu_rpc import encode

_USERS, _GROUPS = 1, 2


def mend(directory: str, users: Iterable[Sequence[int]], groups: Iterable[Sequence[int]]) -> None:
    """Both as (inside, outside, size). Raises StepFailed."""
    entry = encode(
        [*((_USERS, _extent(each)) for each in users), *((_GROUPS, _extent(each)) for each in groups)]
    )
    for path in glob.glob(f"{glob.escape(directory)}/userns-*.img"):
        rewrite(path, lambda _: entry)


def _extent(extent: Sequence[int]) -> bytes:
    return encode(enumerate(extent, start=1))
