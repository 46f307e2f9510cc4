"""YAML text → plain values with positions, and everything that is refused."""

import json
import re
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.errors import SpecInvalid
from controller.spec import document
from controller.spec.document import read


def one(text):
    (only,) = read(text if isinstance(text, bytes) else text.encode(), "f.yaml")
    return only


def refused(text):
    with pytest.raises(SpecInvalid) as error:
        read(text if isinstance(text, bytes) else text.encode(), "f.yaml")
    for problem in error.value.problems:
        assert len(str(problem).splitlines()) == 1
        assert problem.file == "f.yaml"
    return [str(problem).removeprefix("f.yaml:") for problem in error.value.problems]


def bomb(levels=9, width=9):
    lines = ["l0: &l0 [" + ",".join("x" * width) + "]"]
    lines += [f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("n", "n"),
        ("null", None),
        ("~", None),
        ("", None),
        ("10", 10),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0", 0),
        ("1:30", "1:30"),
        ("1000:1000", "1000:1000"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("18446744073709551615", 2**64 - 1),
        ('"80"', "80"),
        ("'true'", "true"),
        ("!!str 80", "80"),
        ("!!int 80", 80),
        ("! 80", "80"),
        ("0-1", "0-1"),
        ("=", "="),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    read_back = one(f"a: {text}").value["a"]
    assert read_back == value
    assert type(read_back) is type(value)


def test_on_is_a_key_like_any_other():
    assert one("notify: [{on: oom}]").value == {"notify": [{"on": "oom"}]}


def test_positions_are_those_of_keys_and_items():
    read_back = one("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    marks = {
        path: read_back.marks[path] for path in [(), ("a",), ("a", "b"), ("a", "c", 1), ("a", "c", 1, "d")]
    }
    assert list(marks.values()) == [(1, 1), (1, 1), (2, 3), (5, 7), (5, 8)]


def test_a_problem_stands_at_the_nearest_ancestor_that_is_written():
    problem = one("spec:\n  mounts:\n  - a: 1\n").problem(("spec", "mounts", 0, "target", "x"), "is missing")
    assert str(problem) == "f.yaml:3:5: spec.mounts[0].target.x: is missing"


def test_columns_count_characters_after_a_byte_order_mark():
    assert one(b'\xef\xbb\xbf"\xc3\xa9": 1\nb: 2').marks[("b",)] == (2, 1)
    assert one("{é: 1, b: 2}").marks[("b",)] == (1, 8)


@pytest.mark.parametrize(
    ("key", "shown"), [("a b", '["a b"]'), ("x\ny", '["x\\ny"]'), ("net.core", '["net.core"]')]
)
def test_keys_that_are_no_words_are_quoted_in_paths(key, shown):
    assert document.path_text(("spec", key, 0)) == f"spec{shown}[0]"


def test_several_documents_and_empty_ones():
    documents = read(b"---\n---\na: 1\n--- ~\n---\nb: 2\n...\n", "f.yaml")
    assert [(each.index, each.value) for each in documents] == [(1, {"a": 1}), (3, {"b": 2})]
    assert read(b"", "f.yaml") == read(b"# nothing\n", "f.yaml") == ()


def test_anchors_end_with_their_document():
    assert refused("a: &x 1\n---\nb: *x") == ["3:4: b: *x stands for nothing: there is no &x before it"]


def test_merge_keys_fill_in_what_is_not_written():
    text = "base: &b {a: 1, b: 2}\nm:\n  <<: *b\n  b: 3\nn: {<<: [{a: 0}, *b], c: 4}\n"
    read_back = one(text)
    assert read_back.value["m"] == {"a": 1, "b": 3}
    assert read_back.value["n"] == {"a": 0, "b": 2, "c": 4}
    assert read_back.marks["m", "a"] == (3, 3)
    assert one('a: {"<<": 1}').value == {"a": {"<<": 1}}
    assert refused("a: {<<: 1}") == ["1:5: a: << takes a mapping or a list of mappings"]


def test_every_problem_is_reported_not_only_the_first():
    assert refused("a: 1\na: 2\nb: .nan\nc: !x y\n80: z\n") == [
        '2:1: a: "a" is written twice: on line 1 and again on line 2',
        "3:4: b: .nan is not a number that can be used here",
        '4:4: c: the tag "!x" is not allowed for "y"',
        '5:1: "80" cannot be a key: keys are text; put it in quotes',
    ]


def test_duplicates_are_found_in_merged_and_nested_mappings():
    assert len(refused("x: {a: {b: 1, 'b': 2, \"b\": 3}}")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [ls]", "python/object/apply:os.system"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!set {b}", "tag"),
        ("a: !!seq {}", "tag"),
        ("a: !!int x", "tag"),
        ("a: .inf", "not a number"),
        ("a: -.INF", "not a number"),
        ("a: 1e999", "too large"),
        ("a: 18446744073709551616", "too large"),
        ("a: " + "9" * 100_000, "too large"),
        ("a: 0x" + "f" * 100_000, "too large"),
        ("? [a]\n: 1", "cannot be a key"),
        ("true: 1", "cannot be a key"),
        ("~: 1", "cannot be a key"),
        ("1.5: 1", "cannot be a key"),
        ("[{}: 1]", "cannot be a key"),
        ("- a", "a document is a mapping"),
        ("text", "a document is a mapping"),
        ("a: [1\nb: 2", "2:2: what is opened on line 1 goes on with a comma or ends with ]"),
        ("a:\n\tb: 1", "2:1: .*spaces, not tabs"),
        ("a: @x", "quote text that begins with @"),
        ("a: 'x", "opened on line 1 are never closed"),
        (
            "a:\n  b: 1\n c: 2",
            "3:2: line 3 is indented otherwise than the lines it belongs to, from line 1 on",
        ),
        ('a: "b" c', "1:8: this does not go on from what is before it on the line: put the whole in quotes"),
        ("a: [,]", "a value is missing here, or has to be quoted"),
        (r'a: "\d"', r"in double quotes a backslash is written \\\\, or use single quotes"),
        ("a: 1\nother", "line 2 is neither KEY: VALUE"),
        ("a:\n  - x\n  y: 1", "3:3: line 3 is indented like the entries of the list from line 2 on"),
        ("a: b: c", "1:5: there is no place for a key here"),
        ('a: "\\0"', "NUL"),
        ('"\\0": a', "NUL"),
        ('a: "\\uD800"', "1:"),
        ("a: *b", r"\*b stands for nothing"),
        ("a: &x [*x]", r"\*x contains itself"),
        ("a: &x {b: {c: *x}}", r"\*x contains itself"),
        ("&x a: &y {<<: *y}", r"\*y contains itself"),
        ("a: 1\n... b", "2:"),
        ("%YAML 3.0\n---\na: 1", "incompatible"),
    ],
)
def test_what_is_refused_says_why(text, message):
    problems = refused(text)
    assert re.search(message, "\n".join(problems)), problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: é".encode("latin-1"), "1:4: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        (b"\xef\xbb\xbfa: 1\nb\xe9", "2:2: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: the file is UTF-16: save it as UTF-8"),
        ("a: 1".encode("utf-16-le"), "1:2: character U+0000 is not allowed in YAML"),
        (b"a: 1\nb: \0", "2:4: character U+0000 is not allowed in YAML"),
        (b"a: \x1b[0m", "1:4: character U+001B is not allowed in YAML"),
        (b"\xed\xa0\x80", "1:1: byte 0xed is not UTF-8: save the file as UTF-8"),
    ],
)
def test_only_utf_8_text_is_read(text, message):
    assert refused(text) == [message]


@pytest.mark.parametrize("text", [bomb(), bomb(60, 3), bomb().replace(b"[", b"{k: [").replace(b"]", b"]}")])
def test_aliases_that_multiply_are_refused_before_they_are_expanded(text):
    begin = time.thread_time()
    problems = refused(text)
    assert time.thread_time() - begin < 0.05
    assert "100000 values" in problems[0] or "levels deep" in problems[0]


def test_aliases_within_the_budget_are_what_they_stand_for():
    read_back = one("a: &a [1, {b: 2}]\nc: [*a, *a]")
    assert json.loads(json.dumps(read_back.value)) == {"a": [1, {"b": 2}], "c": [[1, {"b": 2}]] * 2}


def test_a_chain_of_aliases_cannot_go_deeper_than_written_out():
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 40))
    assert "levels deep" in refused(text)[0]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_at_once(opening):
    begin = time.thread_time()
    refused(opening * 200_000)
    assert time.thread_time() - begin < 0.5


def test_thirty_two_levels_are_enough_and_thirty_three_too_many():
    assert one("a: " + "[" * 30 + "x" + "]" * 30)
    assert "levels deep" in refused("a: " + "[" * 31 + "x" + "]" * 31)[0]


def test_a_large_file_is_refused_by_its_size_alone():
    huge = b"a" * (100 << 20)
    begin = time.thread_time()
    assert refused(huge) == [f" the file has {100 << 20} bytes; at most {1 << 20} are read"]
    assert time.thread_time() - begin < 0.05


def test_many_values_are_refused_within_the_size():
    assert "100000 values" in refused("a: [" + "1," * 200_000 + "]")[0]


def test_a_flood_of_problems_ends():
    assert len(refused("".join(f"a: {n}\n" for n in range(10_000)))) <= document.MOST_PROBLEMS


# No deadline: the machine that runs this may be busy.
patient = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])


def accepted(text):
    try:
        return read(text, "f.yaml")
    except SpecInvalid as error:
        problems = error.problems
    assert problems
    assert all(len(str(problem).splitlines()) == 1 for problem in problems)
    return ()


@patient
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(text):
    accepted(text)


@patient
@given(st.text(alphabet="abx01:-?[]{},&*!|>'\"%@`#~<. \n\t\\é\u2028\x85\ufeff", max_size=80))
def test_any_text_made_of_yaml_is_read_or_refused(text):
    for each in accepted(text.encode()):
        json.dumps(each.value, allow_nan=False)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc <~1", max_size=3), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@patient
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), plain, max_size=5))
def test_json_is_read_as_json(value):
    text = json.dumps(value, ensure_ascii=False)
    assert one(text).value == value


@patient
@given(st.text(alphabet="abx01:-?[]{},&*!|>'\"%#~<. \n", max_size=60))
def test_both_parsers_agree_on_what_is_read(text):
    """Where libyaml is missing, PyYAML's own parser takes its place."""

    def by(loader):
        composer = document._Composer("f.yaml", text, loader)
        values = [each.value for each in composer.documents()]
        return None if composer.problems else values

    fast, slow = by(yaml.CSafeLoader), by(yaml.SafeLoader)
    assert fast is None or slow is None or fast == slow
