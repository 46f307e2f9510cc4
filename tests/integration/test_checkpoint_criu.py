"""What CRIU itself writes: dumps of a live process, stored, and restored by CRIU from what the store gives back."""

from __future__ import annotations

from pathlib import Path

from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Draft, Origin
from tests.dumped import dumped
from tests.images import read_all

ROUNDS = 4


def _quiet(_what: str, _amount: int) -> None:
    return


def test_dumps_of_a_live_process_share_what_did_not_change(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"), "")
    made, images = [], tmp_path
    with dumped(24) as process:
        for at in range(ROUNDS):
            images = process.dump(tmp_path / f"images-{at}")
            made.append(store.save(Draft(Origin("web", at, "manual"), str(images)), 0, _quiet))
            process.dirty(2, scattered=True)
    first, *others = made
    assert all(each.stored < first.stored / 12 for each in others)
    store.restore(made[-1].id, str(tmp_path / "back"), {}, _quiet)
    assert read_all(tmp_path / "back") == read_all(images)
    assert all(store.verify(each.id) == () for each in made)
