"""What a container was admitted with. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Grant:
    """`sections`: the limits that are in force, as written, by path. `amounts`: what it holds of each dimension.

    It may hold more than its limits say: what it gives back is free only when a look has seen it to be.
    """

    sections: Mapping[str, Any]
    amounts: Mapping[str, int]


Grants = Mapping[str, Grant]
"""By container, whoever was admitted first comes first."""
