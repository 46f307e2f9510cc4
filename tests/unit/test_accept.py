"""What becomes of a source: one bad file keeps its last good version, silence is not deletion."""

from __future__ import annotations

import hashlib

from controller.errors import Problem, SpecInvalid
from controller.model.desired import DesiredSet
from controller.model.resource import Resource
from controller.model.snapshot import Commit, Snapshot, SourceFile
from controller.spec.accept import accept, across, freeze, whole
from controller.spec.parse import parse as real_parse


def parse(text: bytes, file: str) -> tuple[Resource, ...]:
    """`a=1 b=2` → two containers; `bad` → a problem."""
    if b"bad" in text:
        raise SpecInvalid((Problem(file, 1, 1, "", "bad"),))
    words = [word.split("=") for word in text.decode().split()]
    return tuple(Resource(name, file, {}, {"version": version}) for name, version in words)


def take(before: DesiredSet, **files: str) -> DesiredSet:
    return accept(before, snapshot({f"{name}.yaml": text for name, text in files.items()}), parse, "")


def snapshot(texts: dict[str, str], *unreadable: Problem, leaving: str = "") -> Snapshot:
    files = tuple(
        SourceFile(path, text.encode(), hashlib.sha256(text.encode()).hexdigest(), path == leaving)
        for path, text in texts.items()
    )
    return Snapshot("rev", files, unreadable)


def versions(desired: DesiredSet) -> dict[str, str]:
    return {name: each.spec["version"] for name, each in desired.containers.items()}


def test_good_files_are_taken_and_vanished_ones_dropped() -> None:
    first = take(DesiredSet(), one="a=1", two="b=1 c=1")
    assert versions(first) == {"a": "1", "b": "1", "c": "1"}
    assert versions(take(first, one="a=2")) == {"a": "2"}


def test_a_bad_file_keeps_its_last_good_version_and_is_rejected() -> None:
    first = take(DesiredSet(), one="a=1", two="b=1")
    second = take(first, one="bad", two="b=2")
    assert versions(second) == {"a": "1", "b": "2"}
    assert [problem.file for problem in second.rejected] == ["one.yaml"]
    assert take(second, one="a=3", two="b=2").rejected == ()


def test_a_file_bad_from_the_start_brings_nothing() -> None:
    assert versions(take(DesiredSet(), one="bad", two="b=1")) == {"b": "1"}


def test_silence_freezes() -> None:
    first = take(DesiredSet(), one="a=1")
    empty = take(first)
    assert versions(empty) == {"a": "1"}
    assert empty.frozen
    assert versions(freeze(first, "gone")) == {"a": "1"}
    assert not take(empty, one="a=2").frozen


def test_an_unreadable_file_keeps_what_it_said() -> None:
    first = take(DesiredSet(), one="a=1", two="b=1")
    problem = Problem("one.yaml", 0, 0, "", "cannot be read")
    second = accept(first, snapshot({"two.yaml": "b=2"}, problem), parse, "")
    assert versions(second) == {"a": "1", "b": "2"}
    assert second.rejected == (problem,)


def test_whoever_had_a_name_keeps_it() -> None:
    first = take(DesiredSet(), two="a=1")
    second = take(first, one="a=9 d=1", two="a=1")
    assert versions(second) == {"a": "1"}
    assert "two.yaml" in second.rejected[0].message
    assert second.rejected[0].file == "one.yaml"
    third = take(second, one="a=9 d=1", two="b=1")
    assert versions(third) == {"a": "9", "d": "1", "b": "1"}
    assert third.rejected == ()


def test_of_two_new_ones_the_first_by_path_wins() -> None:
    both = take(DesiredSet(), one="a=1", two="a=2")
    assert versions(both) == {"a": "1"}
    assert len(both.rejected) == 1


def test_an_unchanged_file_is_not_parsed_again() -> None:
    first = take(DesiredSet(), one="a=1")
    again = take(first, one="a=1")
    assert again.files["one.yaml"] is first.files["one.yaml"]


def test_it_survives_being_stored() -> None:
    mixed = take(take(DesiredSet(), one="a=1", two="b=1"), one="bad", two="b=2")
    assert DesiredSet.from_json(mixed.to_json()) == mixed


def test_partners_must_exist_and_not_share_in_a_circle() -> None:
    def one(name: str, partner: str) -> Resource:
        return Resource(name, f"{name}.yaml", {}, {"namespaces": {"net": f"container:{partner}"}})

    def problems(*containers: Resource) -> list[str]:
        by_name = {each.name: each for each in containers}
        found = snapshot({each.file: each.name for each in containers})
        accepted = accept(DesiredSet(), found, lambda text, _: (by_name[text.decode()],), "")
        assert not across(accepted), "what is rejected is not desired"
        return [problem.message for problem in accepted.rejected]

    assert "which no valid file defines" in problems(one("a", "b"))[0]
    assert "in turn" in problems(one("a", "b"), one("b", "a"))[0]


def test_files_of_a_directory_that_cannot_be_listed_keep_what_they_said() -> None:
    first = accept(DesiredSet(), snapshot({"s/sub/one.yaml": "a=1", "s/two.yaml": "b=1"}), parse, "")
    problem = Problem("s/sub", 0, 0, "", "cannot be listed")
    assert versions(accept(first, snapshot({"s/two.yaml": "b=1"}, problem), parse, "")) == {
        "a": "1",
        "b": "1",
    }


def test_a_renamed_file_defines_its_containers_under_the_new_name_at_once() -> None:
    """Also when it is edited on the way, and when it then comes back."""
    first = take(DesiredSet(), one="a=1 b=1")
    both = accept(first, snapshot({"one.yaml": "a=1 b=1", "two.yaml": "a=2"}, leaving="one.yaml"), parse, "")
    assert versions(both) == {"a": "2", "b": "1"}
    assert both.rejected == ()
    assert versions(take(both, two="a=2")) == {"a": "2"}
    back = take(both, one="a=1 b=1")
    assert versions(back) == {"a": "1", "b": "1"}


def test_a_problem_between_files_stands_where_its_section_is_written() -> None:
    head = "apiVersion: masu/v1\nkind: Container\nmetadata: {name: a}\nspec:\n"
    body = "  rootfs: {path: /srv}\n  process: {args: [/a]}\n  networks:\n  - network: n\n"
    (resource,) = real_parse((head + body).encode(), "a.yaml")
    assert resource.place("spec.networks[0].network") == (8, 5)
    assert resource.place("spec.networks[7].network") == (7, 3)
    assert resource.place("spec.hostname") == (resource.line, resource.column) == (3, 12)


def test_a_revision_is_taken_whole_or_not_at_all_if_somebody_wants_it_so() -> None:
    first = take(DesiredSet(), one="a=1", two="b=1")
    assert whole(DesiredSet(), first) == first
    second = take(first, one="bad", two="b=2")
    kept = whole(first, second)
    assert versions(kept) == {"a": "1", "b": "1"}
    assert kept.revision == first.revision
    assert [problem.file for problem in kept.rejected] == ["one.yaml"]
    assert "refused as a whole (--atomic): 1 problem" in kept.frozen
    third = take(kept, one="a=2", two="b=2")
    assert (whole(kept, third), third.frozen, third.rejected) == (third, "", ())


def test_a_commit_and_its_time_stay_with_the_revision() -> None:
    commit = Commit("c" * 40, "limit web", 1000)
    files = snapshot({"one.yaml": "a=1"}).files
    first = accept(DesiredSet(), Snapshot("c" * 40, files, (), commit), parse, "")
    assert (first.commit, first.since) == (commit, 0)
    taken = DesiredSet.from_json(first.to_json())
    assert taken == first
    timed = DesiredSet(first.revision, first.files, commit=commit, since=77)
    stale = accept(timed, Snapshot("c" * 40, files, (), commit, "nobody answers"), parse, "")
    assert (stale.since, stale.silence, stale.frozen) == (77, "nobody answers", "")
    assert accept(stale, Snapshot("d" * 40, files, ()), parse, "").since == 0


def test_what_went_as_a_bad_file_came_stays_until_that_is_clear() -> None:
    """A file that is moved and edited in one go; which of its containers are meant to go, nobody knows."""
    first = take(DesiredSet(), one="a=1 b=1", two="c=1")
    moved = take(first, new="a=2 bad", two="c=1 b=2")
    assert versions(moved) == {"a": "1", "b": "2", "c": "1"}
    (kept,) = [each for each in moved.rejected if "may be in it" in each.message]
    assert kept.file == "new.yaml"
    assert kept.message.startswith('"a" went from one.yaml')
    again = take(DesiredSet.from_json(moved.to_json()), new="a=2 bad", two="c=1 b=2")
    assert versions(again) == versions(moved), "as long as it is so"
    assert versions(take(again, new="a=3", two="c=1 b=2")) == {"a": "3", "b": "2", "c": "1"}
    assert versions(take(again, two="c=1 b=2")) == {"b": "2", "c": "1"}, "and no longer"
    assert versions(take(again, new="bad", one="a=4", two="c=1 b=2"))["a"] == "4"


def test_a_file_that_has_long_been_bad_is_no_reason_to_keep_what_goes() -> None:
    first = take(DesiredSet(), one="a=1", junk="bad", two="b=1")
    assert versions(take(first, junk="bad", two="b=1")) == {"b": "1"}


def test_a_move_is_seen_although_the_old_file_is_given_time_to_come_back() -> None:
    first = take(DesiredSet(), one="a=1", two="b=1")
    texts = {"one.yaml": "a=1", "new.yaml": "bad", "two.yaml": "b=1"}
    both = accept(first, snapshot(texts, leaving="one.yaml"), parse, "")
    gone = take(both, new="bad", two="b=1")
    assert versions(gone) == {"a": "1", "b": "1"}
    back = take(both, one="a=1", new="bad", two="b=1")
    assert versions(take(back, new="bad", two="b=1")) == {"b": "1"}, (
        "it was there after all, and was removed later"
    )


def test_what_went_as_a_file_came_that_cannot_be_read_stays() -> None:
    first = take(DesiredSet(), one="a=1", two="b=1")
    problem = Problem("new.yaml", 0, 0, "", "belongs to user 1000")
    assert versions(accept(first, snapshot({"two.yaml": "b=1"}, problem), parse, "")) == {"a": "1", "b": "1"}
