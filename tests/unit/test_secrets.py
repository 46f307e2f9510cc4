"""What a container is to have of the host's secrets, and what follows when one has changed or is missing."""

from __future__ import annotations

from typing import Any

from controller.aspects._base import Subject
from controller.aspects.process import Process
from controller.aspects.secrets import Secrets, Seen
from controller.model.frame import owner_of, without_secrets
from controller.model.record import Record, StopRule
from controller.steps.runtime import Await, StopContainer
from controller.steps.secrets import ForgetSecrets, PutSecrets
from tests.worlds import facts

FACTS = facts("v2")
ASPECT = Secrets()
FILE = {"secret": "key", "target": "/run/secrets/key", "owner": "7"}
RECORD = Record(
    name="web", digest="d", frame="f", phase="running", boot_id="boot", stop=StopRule(15, 0), pid=9
)
DEAD, ALIVE = Subject("web", "/masu/i/web", 0, None, 1000), Subject("web", "/masu/i/web", 9, RECORD, 1000)


def wanted(**section: Any) -> Any:
    return ASPECT.parse({"variables": {"A": "a"}, "files": [FILE], "user": "host", **section}, FACTS)


def kinds(subject: Subject, seen: Seen, **section: Any) -> list[str]:
    return [each.kind for each in ASPECT.diff(subject, wanted(**section), seen)]


def test_nothing_is_asked_for() -> None:
    nothing = ASPECT.parse(None, FACTS)
    assert ASPECT.diff(DEAD, nothing, Seen()) == []
    assert ASPECT.diff(ALIVE, nothing, Seen(shown=frozenset())) == []
    (step,) = ASPECT.diff(DEAD, nothing, Seen(shown=frozenset()))
    assert step.kind == "ForgetSecrets", "of files that it had"


def test_files_are_put_before_the_birth_and_when_they_change() -> None:
    (step,) = ASPECT.diff(DEAD, wanted(), Seen())
    assert isinstance(step, PutSecrets)
    assert step.files[0].owner == (7, 7)
    assert step.files[0].mode == 0o400
    assert "key" in step.text
    current = Seen(given=frozenset({"A"}), shown=frozenset({"/run/secrets/key"}))
    assert kinds(ALIVE, current) == []
    assert kinds(ALIVE, Seen(given=frozenset({"A"}), shown=frozenset())) == ["PutSecrets"]


def test_a_variable_that_has_changed_restarts_and_who_is_being_stopped_is_left_alone() -> None:
    seen = Seen(shown=frozenset({"/run/secrets/key"}))
    (step,) = ASPECT.diff(ALIVE, wanted(), seen)
    assert isinstance(step, StopContainer)
    assert step.why == "the secret of A has changed"
    assert kinds(DEAD, seen) == []


def test_what_is_missing_is_waited_for_before_a_birth_and_only_told_after_it() -> None:
    seen = Seen(lacking=("it is not there",))
    (step,) = ASPECT.diff(DEAD, wanted(), seen)
    assert isinstance(step, Await)
    assert (step.reason, step.message) == ("SecretMissing", "it is not there")
    assert kinds(ALIVE, seen) == []
    assert ASPECT.remarks(wanted(), seen) == [], "whoever waits says so"
    lives = Seen(lacking=("it is not there",), lives=True)
    assert [each.reason for each in ASPECT.remarks(wanted(), lives)] == ["SecretMissing"]


def test_it_goes_with_the_container() -> None:
    assert [type(each) for each in ASPECT.remove(DEAD, Seen(shown=frozenset()))] == [ForgetSecrets]
    assert ASPECT.remove(ALIVE, Seen(shown=frozenset())) == []
    assert ASPECT.remove(DEAD, Seen()) == []


def test_a_variable_is_a_hole_in_the_bundle_config() -> None:
    section = {"args": ["/bin/true"], "env": {"A": {"secret": "a"}, "B": "b"}}
    birth = Process().birth(Process().parse(section, FACTS))
    assert birth.config["process"]["env"][1:] == [{"name": "A", "secret": "a"}, "B=b"]


def test_what_other_programs_read_has_no_holes() -> None:
    config = {"process": {"args": ["x"], "env": [{"name": "A", "secret": "a"}, "B=b"]}, "root": {}}
    assert without_secrets(config) == {"process": {"args": ["x"], "env": ["B=b"]}, "root": {}}


def test_owners_are_those_of_the_user_namespace() -> None:
    extents = [(0, 70000, 1000), (2000, 5, 1)]
    assert [owner_of(each, extents) for each in (0, 7, 2000, 3000)] == [70000, 70007, 5, 70000]
    assert owner_of(3, []) == 0
