"""Directories laid over each other on disk: what is read, and that a change in any of them is noticed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from controller.errors import SourceUnreadable
from controller.sources.layers import LayeredDirectory


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


def layers(source: LayeredDirectory, root: Path) -> dict[str, int]:
    return {str(Path(each.path).relative_to(root)): each.layer for each in source.snapshot().files}


def test_what_is_read_follows_the_file_that_says_so(tmp_path: Path) -> None:
    write(tmp_path / "base/web.yaml", "a")
    write(tmp_path / "other/web.yaml", "a")
    write(tmp_path / "edge/web.yaml", "b")
    source = LayeredDirectory(f"{tmp_path}/edge/")
    assert layers(source, tmp_path) == {"edge/web.yaml": 0}
    write(tmp_path / "edge/masu.yaml", "base: ../base\n")
    assert layers(source, tmp_path) == {"base/web.yaml": 0, "edge/web.yaml": 1}
    first = source.snapshot().revision
    write(tmp_path / "base/web.yaml", "changed")
    assert source.snapshot().revision != first
    write(tmp_path / "edge/masu.yaml", "base: ../other\n")
    assert layers(source, tmp_path) == {"other/web.yaml": 0, "edge/web.yaml": 1}


def test_a_base_that_is_gone_or_not_understood_is_silence(tmp_path: Path) -> None:
    write(tmp_path / "edge/masu.yaml", "base: ../base\n")
    source = LayeredDirectory(f"{tmp_path}/edge")
    with pytest.raises(SourceUnreadable, match="base: No such file"):
        source.snapshot()
    (tmp_path / "base").mkdir()
    with pytest.raises(SourceUnreadable, match="holds no spec file"):
        source.snapshot()
    write(tmp_path / "edge/masu.yaml", "nonsense: 1\n")
    with pytest.raises(SourceUnreadable, match=r"masu.yaml:1:1: nonsense: is not known"):
        source.snapshot()


def test_a_change_in_any_of_them_is_a_nudge(tmp_path: Path) -> None:
    write(tmp_path / "base/web.yaml", "a")
    write(tmp_path / "other/web.yaml", "a")
    write(tmp_path / "edge/masu.yaml", "base: ../base\n")
    source, nudged = LayeredDirectory(f"{tmp_path}/edge"), threading.Event()
    watch = source.watch(nudged.set)
    try:
        source.snapshot()
        for path, text in (
            ("base/web.yaml", "b"),
            ("edge/web.yaml", "b"),
            ("edge/masu.yaml", "base: ../other\n"),
            ("other/web.yaml", "b"),
        ):
            nudged.clear()
            write(tmp_path / path, text)
            assert nudged.wait(5), path
            source.snapshot()
        (tmp_path / "base/web.yaml").unlink()
        nudged.clear()
        watch.hurry()
        assert nudged.is_set()
    finally:
        watch.close()
    nudged.clear()
    write(tmp_path / "edge/web.yaml", "c")
    assert not nudged.wait(0.3)
