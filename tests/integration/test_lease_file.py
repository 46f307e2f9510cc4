"""The file of leases: what is damaged is told, and never taken for empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.leases import LeaseFile
from controller.model.attachment import Lease

GOOD = {"front": {"web": Lease(("10.88.0.2", "fd88::2"), 16)}}


def test_what_is_saved_is_there_again_and_nothing_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "leases.json"
    file = LeaseFile(str(path))
    assert file.load() == {}
    file.save(GOOD)
    assert file.load() == GOOD
    file.save({})
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"front": {"we',
        "[]",
        '{"front": []}',
        '{"front": {"web": {}}}',
        '{"front": {"web": {"addresses": ["x"], "slot": 1}}}',
        '{"front": {"web": {"addresses": [], "slot": -5}}}',
        '{"front": {"web": {"addresses": [], "slot": 99999}}}',
    ],
)
def test_damage_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "leases.json"
    path.write_text(text)
    with pytest.raises(StepFailed, match="is damaged"):
        LeaseFile(str(path)).load()
