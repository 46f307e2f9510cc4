"""The rules of the directory source that need no directory: names, and when a remembered text may be trusted."""

from __future__ import annotations

import inspect

import pytest

from controller.model.names import printable
from controller.sources import directory, git_tree, walk
from controller.sources.directory import SETTLED_NS, is_unchanged
from controller.sources.walk import Listing, is_spec

NOW = 1_700_000_000_000_000_000


@pytest.mark.parametrize("name", ["web.yaml", "web.yml", "a.b.yaml", "4913.yaml", "web space.yaml", "ü.yaml"])
def test_takes_specs(name: str) -> None:
    assert is_spec(name)


@pytest.mark.parametrize(
    "name",
    [
        ".web.yaml", "web.yaml~", "~web.yaml", ".web.yaml.swp", "web.yaml.bak", "#web.yaml#", ".#web.yaml",
        "4913", "web.yaml.tmp", "web.YAML", "web.json", "yaml", "README.md", "web.yaml.orig", "",
    ],
)  # fmt: skip
def test_leaves_what_editors_leave(name: str) -> None:
    assert not is_spec(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web.yaml", "web.yaml"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\udcff", r"\xff"),
        ("\ud800", r"\ud800"),
        ("é", "é"),
    ],
)
def test_escapes_what_would_spoil_a_terminal(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_trusts_a_text_read_well_after_its_time_stamps() -> None:
    identity = (1, 2, 3, NOW, NOW)
    assert is_unchanged(identity, NOW + SETTLED_NS + 1, identity)


@pytest.mark.parametrize("delay_ns", [-1, 0, SETTLED_NS])
def test_never_trusts_a_text_read_within_a_tick_of_its_time_stamps(delay_ns: int) -> None:
    """However long ago that was: the second write of that tick cannot be seen in the stamps."""
    identity = (1, 2, 3, NOW - 5, NOW)
    assert not is_unchanged(identity, NOW + delay_ns, identity)


@pytest.mark.parametrize("place", range(5))
def test_every_part_of_the_identity_counts(place: int) -> None:
    before = (1, 2, 3, NOW, NOW)
    after = tuple(value + (index == place) for index, value in enumerate(before))
    assert not is_unchanged(before, NOW + 10 * SETTLED_NS, after)  # type: ignore[arg-type]


def test_an_unlisted_directory_covers_what_is_below_it_only() -> None:
    listing = Listing((), unlisted=("/s/a",))
    assert listing.covers("/s/a/b/web.yaml")
    assert not listing.covers("/s/ab/web.yaml")


def test_every_kind_of_source_reads_as_much() -> None:
    for kind in (directory, git_tree):
        assert (kind.MAX_BYTES, kind.MAX_FILES) == (walk.MAX_BYTES, walk.MAX_FILES)
        assert "MAX_BYTES =" not in inspect.getsource(kind)
