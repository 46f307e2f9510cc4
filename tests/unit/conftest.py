"""What the property tests share; hypothesis is there only where development tools are."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
if os.environ.get("MASU_STRICT_SKIPS"):
    settings.load_profile("same")  # what CI says is about the change, not about the dice
