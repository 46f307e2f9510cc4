"""Who comes second to an instance."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.errors import InstanceBusy
from controller.host.alone import InstanceLock


def test_who_comes_second_is_told_what_to_do_instead(tmp_path: Path) -> None:
    first = InstanceLock(str(tmp_path / "lock"), "web")
    with pytest.raises(InstanceBusy, match=r"it converges by itself .* and at once with masu sync"):
        InstanceLock(str(tmp_path / "lock"), "web")
    first.release()
    InstanceLock(str(tmp_path / "lock"), "web").release()
