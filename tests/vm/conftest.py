"""`inner/` holds tests that only make sense inside the machine, which says so by MASU_VM=1."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("MASU_VM") else ["inner"]
