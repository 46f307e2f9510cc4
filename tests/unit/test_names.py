"""Names, host paths and suggestions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.names import check_host_path, check_name, quote, suggest

NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


@pytest.mark.parametrize("name", ["a", "0", "web", "db-1", "a" * 63, "a--b"])
def test_a_name_is_returned_unchanged(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a\n", "é", "a b", "a" * 64, "\0"]
)
def test_anything_else_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match="name") as refused:
        check_name(name)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=70))
def test_a_name_is_exactly_what_the_pattern_says(text):
    try:
        accepted = check_name(text) == text
    except ValueError:
        accepted = False
    assert accepted == bool(re.fullmatch(NAME, text))


@pytest.mark.parametrize(
    "path", ["/", "/srv/www", "/srv/a..b", "/srv/...", "/with space", "/é", "/" + "a" * 4094]
)
def test_a_host_path_is_returned_unchanged(path):
    assert check_host_path(path) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "absolute"),
        ("srv", "absolute"),
        ("./srv", "absolute"),
        ("~/x", "absolute"),
        ("/srv/../etc", r"\.\."),
        ("/..", r"\.\."),
        ("/a\nb", "control"),
        ("/a\0b", "control"),
        ("/a\x7f", "control"),
        ("/" + "a" * 4095, "longer"),
        ("/" + "é" * 2048, "longer"),
    ],
)
def test_a_host_path_that_could_mean_something_else_is_refused(path, why):
    with pytest.raises(ValueError, match=why) as refused:
        check_host_path(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("maxx", "max"),
        ("memroy", "memory"),
        ("readonly", "readOnly"),
        ("read_only", "readOnly"),
        ("MAX", "max"),
    ],
)
def test_a_slip_is_recognised(word, meant):
    assert suggest(word, ["max", "memory", "readOnly", "weight"]) == meant


@pytest.mark.parametrize("word", ["", "zzz", "x" * 100_000])
def test_no_suggestion_is_better_than_a_wild_one(word):
    assert suggest(word, ["max", "memory"]) is None


@given(st.text())
def test_quoted_text_is_one_short_line(text):
    shown = quote(text)
    assert len(shown.splitlines()) == 1
    assert len(shown) <= 62 * 10
