"""The file of grants: in order, of this boot, and never in the way."""

from __future__ import annotations

from pathlib import Path

from controller.host.grants import GrantFile
from controller.model.grant import Grant

GRANTS = {
    name: Grant({"limits.memory": {"max": "1Mi"}}, {"memory.max": 1 << 20}) for name in ("web", "db", "a")
}


def test_what_was_saved_is_loaded_in_the_same_order(tmp_path: Path) -> None:
    store = GrantFile(str(tmp_path / "run" / "grants.json"), "this boot")
    assert store.load() == {}
    store.save(GRANTS)
    assert list(store.load().items()) == list(GRANTS.items())
    store.save({})
    assert list((tmp_path / "run").iterdir()) == []


def test_after_a_boot_nobody_has_anything(tmp_path: Path) -> None:
    path = str(tmp_path / "grants.json")
    GrantFile(path, "one boot").save(GRANTS)
    assert GrantFile(path, "the next").load() == {}


def test_a_damaged_file_is_none_and_one_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "grants.json"
    for text in ("{", "[]", '{"boot": "b", "grants": {"a": 1}}', '{"boot": "b", "grants": {"a": {}}}'):
        path.write_text(text)
        assert GrantFile(str(path), "b").load() == {}
    path.unlink()
    path.mkdir()
    (path / "in the way").touch()
    GrantFile(str(path), "b").save(GRANTS)
