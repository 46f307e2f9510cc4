"""Layers: whoever lives on the host sees nothing of what a container put there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from controller.host.layers import LayerDirectories
from controller.host.places import Places
from controller.host.snapshots import LayerSnapshots

pytestmark = pytest.mark.root
NOBODY = 65534


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Below directories that everybody may pass."""
    for each in (tmp_path, *tmp_path.parents):
        if each != Path("/"):
            each.chmod(each.stat().st_mode | 0o055)
    return tmp_path


def test_a_set_user_id_program_of_a_container_is_out_of_reach(state: Path) -> None:
    """Also of one that was made when the directory was open, and in the copy for a checkpoint."""
    places = Places("t", str(state), str(state))
    (state / "t" / "layers").mkdir(mode=0o711, parents=True)
    (state / "t").chmod(0o711)
    LayerDirectories(places).prepare("web", "frame", 0, sized=False)
    program = state / "t" / "layers" / "web" / "upper" / "program"
    program.write_text("#!/bin/sh\n")
    os.chmod(program, 0o4755)
    copy = LayerSnapshots(places).copier("web", 0)().path
    for path in (str(program), f"{copy}/program"):
        assert subprocess.run([path], check=False).returncode == 0
        with pytest.raises(PermissionError):
            subprocess.run([path], check=False, user=NOBODY)
