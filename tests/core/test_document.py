"""YAML from the file to plain data with places, and what is said when it is not what was meant."""

import contextlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcraft.core.document import MAX_BYTES, MAX_PROBLEMS, Document, load, parse
from flowcraft.core.errors import DocumentError, PipelineError
from flowcraft.core.problems import Problem
from flowcraft.core.reading.nodes import FastestParser, PurePythonParser

PARSERS = [pytest.param(FastestParser, id="fastest"), pytest.param(PurePythonParser, id="pure")]
GOLDEN = sorted((Path(__file__).parent / "errors" / "document").glob("*.yaml"), key=lambda path: path.name)
HUGE = "9" * 4301


def refused(text: str, parser: Any = FastestParser) -> tuple[Problem, ...]:
    with pytest.raises(DocumentError) as caught:
        parse(text, "file.yaml", parser=parser)
    return caught.value.problems


def first(text: str, parser: Any = FastestParser) -> tuple[int, int, str]:
    problem = refused(text, parser)[0]
    return problem.line, problem.column, problem.code


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("Null", None), ("none", "none"),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"),
        ("0", 0), ("12", 12), ("-3", -3), ("+3", 3), ("-0", 0), ("0o17", 15), ("0x1F", 31),
        pytest.param("9" * 4300, int("9" * 4300), id="4300 digits"),
        ("017", "017"), ("1_000", "1_000"), ("0b1", "0b1"), ("12:30", "12:30"), ("12:30:45", "12:30:45"),
        ("1.5", 1.5), ("-.5", -0.5), ("1.", 1.0), ("1e3", 1000.0), ("1.5E-3", 0.0015), ("3.10", 3.1),
        ("01.5", "01.5"), ("1.2.3", "1.2.3"), ("e3", "e3"), (".", "."), ("-a", "-a"), ("+", "+"),
        ("500k", "500k"), ("2024-01-01", "2024-01-01"), ("2024-99-99", "2024-99-99"), ("=", "="),
        ("'12'", "12"), ('"true"', "true"), ("''", ""), ("'null'", "null"), ('"\\x41"', "A"), ('"\\0"', "\0"),
        ("!!str 12", "12"), ("!!int '12'", 12), ("!!float 1", 1.0), ("!!bool 'true'", True), ("!!null ''", None),
        ("!!map {}", {}), ("!!seq []", []), ("${{ x }}", "${{ x }}"), ("a #b", "a"), ("a#b", "a#b"),
        ("١٢", "١٢"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(written: str, value: Any, parser: Any) -> None:
    found = parse(f"key: {written}", "f", parser=parser).data["key"]

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "written",
    [".inf", "-.INF", ".nan", ".NaN", "1e400", "-1e999", pytest.param(HUGE, id="4301 digits"),
     pytest.param("-" + HUGE, id="minus"), pytest.param("0x" + "f" * 3600, id="hex"),
     pytest.param("0o" + "7" * 5000, id="octal"),
     "!!int a", "!!bool x", "!!float .inf", "!!null 0", "!!int 1.5"],
)  # fmt: skip
def test_numbers_that_json_cannot_hold_are_refused(written: str, parser: Any) -> None:
    assert first(f"a: {written}", parser) == (1, 4, "FC009")


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "tag",
    [
        "!x", "!", "!!python/none", "!!python/name:os.system", "!!python/object:os.x", "!!python/tuple [1]",
        "!!python/object/apply:os.system ['echo']", "!!python/object/new:os.system [x]", "!!python/module:os",
        "!!python/bytes x", "!!binary aGk=", "!!timestamp 2024-01-01", "!!set {a}", "!!omap []", "!!pairs []",
        "!!merge x", "!!value x", "!!yaml x", "!!map x", "!!seq {}", "!!str []", "!a!b c",
        "!<tag:example.com,2000:x> 1",
    ],
)  # fmt: skip
def test_tags_are_refused(tag: str, parser: Any) -> None:
    assert first(f"a: {tag}", parser) == (1, 4, "FC007")


SMALLER = "make it smaller, or put a part of it into a file of its own"


@pytest.mark.parametrize("parser", PARSERS)
class TestLimits:
    @pytest.mark.parametrize("size", [101, 1_000, 10_000, 100_000, 1_000_000])
    @pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
    def test_deep_nesting_is_refused_whatever_its_depth(self, opening: str, size: int, parser: Any) -> None:
        text = opening * min(size, MAX_BYTES // len(opening))

        problem = refused(text, parser)[0]
        assert (problem.code, problem.hint) == ("FC002", SMALLER)

    def test_a_hundred_levels_are_fine(self, parser: Any) -> None:
        assert parse("[" * 100 + "]" * 100, "f", parser=parser).data != []

    @pytest.mark.parametrize(
        "bomb",
        [
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)),
            "a: &a {x: 1, y: 2}\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} {{p: *{chr(97 + n)}, q: *{chr(97 + n)}, r: *{chr(97 + n)}}}\n"
                for n in range(20)
            ),
            "a: &a {x: 1}\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)}\n  <<: [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
            ),
        ],
        ids=["lists", "maps", "merges"],
    )
    def test_aliases_count_as_what_they_stand_for(self, bomb: str, parser: Any) -> None:
        tracemalloc.start()
        try:
            problem = refused(bomb, parser)[0]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert (problem.code, problem.hint) == ("FC002", SMALLER)
        assert peak < 10 << 20

    def test_a_hundred_thousand_values_are_the_limit(self, parser: Any) -> None:
        if parser is PurePythonParser:
            pytest.skip("the count is the same; this parser would take seconds")
        fits = "[" + "1," * 99_999 + "]"

        assert len(parse(fits, "f").data) == 99_999
        assert refused(fits.replace("[", "[1,", 1))[0].code == "FC002"

    def test_an_alias_inside_itself_is_refused(self, parser: Any) -> None:
        assert first("a: &a\n  b: *a", parser) == (2, 6, "FC001")


@pytest.mark.parametrize("parser", PARSERS)
class TestAnchors:
    def test_an_alias_repeats_the_value(self, parser: Any) -> None:
        data = parse("a: &x {b: [1]}\nc: *x\nd: [*x]", "f", parser=parser).data

        assert data == {"a": {"b": [1]}, "c": {"b": [1]}, "d": [{"b": [1]}]}

    @pytest.mark.parametrize(
        ("text", "merged"),
        [
            ("c: {<<: *a, y: 3}", {"x": 1, "y": 3}),
            ("c: {y: 3, <<: *a}", {"x": 1, "y": 3}),
            ("c: {<<: [*b, *a]}", {"x": 1, "y": 9, "z": 8}),
            ("c: {<<: {x: 5}, x: 6}", {"x": 6}),
            ("c: {'<<': 1}", {"<<": 1}),
        ],
    )
    def test_merge_keys_give_way_to_own_ones(self, text: str, merged: dict[str, int], parser: Any) -> None:
        document = parse(f"a: &a {{x: 1, y: 2}}\nb: &b {{y: 9, z: 8}}\n{text}", "f", parser=parser)

        assert document.data["c"] == merged

    def test_a_merged_key_stands_where_it_was_written(self, parser: Any) -> None:
        document = parse("a: &a\n  x: 1\nc:\n  <<: *a\n  y: 2\n", "f", parser=parser)

        assert document.position(("c", "x"), at="key") == (2, 3)
        assert document.position(("c", "y")) == (5, 6)

    def test_an_alias_can_be_a_key_if_it_is_text(self, parser: Any) -> None:
        assert parse("a: &a b\n*a : 1", "f", parser=parser).data == {"a": "b", "b": 1}

    @pytest.mark.parametrize("text", ["a: {<<: 1}", "a: &a [1]\nb: {<<: *a}", "a: {<<: }"])
    def test_only_maps_can_be_merged(self, text: str, parser: Any) -> None:
        assert refused(text, parser)[0].code == "FC001"


@pytest.mark.parametrize("parser", PARSERS)
class TestKeys:
    def test_a_key_that_stands_twice_is_refused_with_both_lines(self, parser: Any) -> None:
        [problem] = refused("stages:\n  a: 1\n  b: 2\n  a: 3\n", parser)

        assert (problem.line, problem.column, problem.code) == (4, 3, "FC006")
        assert "line 2" in problem.message

    @pytest.mark.parametrize("text", ["{a: 1, 'a': 2}", "a: &a {}\nb: {<<: *a, <<: *a}", "a: {b: 1, b: 1}"])
    def test_repeated_keys_are_found_everywhere(self, text: str, parser: Any) -> None:
        assert [problem.code for problem in refused(text, parser)] == ["FC006"]

    @pytest.mark.parametrize("key", ["1", "true", "~", "1.5", "null"])
    def test_a_key_must_be_text(self, key: str, parser: Any) -> None:
        assert first(f"a: 1\n{key}: 2", parser) == (2, 1, "FC008")

    @pytest.mark.parametrize("key", ["on", "no", "2024-01-01", "'1'", "a b", "ключ"])
    def test_words_of_yaml_1_1_are_ordinary_keys(self, key: str, parser: Any) -> None:
        assert list(parse(f"{key}: 1", "f", parser=parser).data) == [key.strip("'")]

    @pytest.mark.parametrize("text", ["? [a]\n: 1", "? {a: 1}\n: 1", "{[a]: 1}"])
    def test_a_key_cannot_be_a_list_or_map(self, text: str, parser: Any) -> None:
        assert refused(text, parser)[0].code == "FC001"

    def test_many_mistakes_are_told_together(self, parser: Any) -> None:
        problems = refused("a: 1\na: 2\nb: !x\n1: c\nd: .inf\ne: 'x' y\n", parser)

        assert [(problem.line, problem.code) for problem in problems] == [
            (2, "FC006"), (3, "FC007"), (4, "FC008"), (5, "FC009"), (6, "FC001"),
        ]  # fmt: skip

    def test_but_not_thousands_of_them(self, parser: Any) -> None:
        assert len(refused("a: 1\n" * 1000, parser)) == 20


class TestFiles:
    def test_a_file_is_named_relative_to_the_working_directory(self, workspace: Path) -> None:
        (workspace / "sub").mkdir()
        (workspace / "sub" / "a.yaml").write_text("a: 1")

        assert load(workspace / "sub" / "a.yaml").file == str(Path("sub", "a.yaml"))

    def test_a_byte_order_mark_is_no_part_of_the_text(self, workspace: Path) -> None:
        (workspace / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")

        document = load(Path("a.yaml"))

        assert document.data == {"a": 1, "b": "x"}
        assert document.position(("b",)) == (2, 4)

    @pytest.mark.parametrize(
        ("content", "code", "line"),
        [
            (b"a: 1\nb: caf\xe9\n", "FC005", 2),
            ("a: 1".encode("utf-16"), "FC005", 1),
            (b"a: 1\nb: \x00\n", "FC005", 2),
            (b"a: \x1b[31m\n", "FC005", 1),
            (b"", "FC005", 1),
            (b"# nothing\n\n", "FC005", 1),
            (b"---\n", "FC005", 2),
            (b"a: 1\n" * (2 << 20), "FC002", 0),
        ],
        ids=["latin1", "utf16", "nul", "escape", "empty", "comment", "start", "large"],
    )
    def test_a_file_that_cannot_be_used_is_refused(self, workspace: Path, content: bytes, code: str, line: int) -> None:
        (workspace / "a.yaml").write_bytes(content)

        with pytest.raises(PipelineError) as caught:
            load(Path("a.yaml"), error=PipelineError)

        [problem] = caught.value.problems
        assert (problem.file, problem.code) == ("a.yaml", code)
        assert problem.line in (line, 1)
        assert problem.hint
        assert "\x1b" not in str(problem)
        assert "\x00" not in str(problem)

    def test_a_blank_file_can_stand_for_something(self, workspace: Path) -> None:
        (workspace / "a.yaml").write_text("# nothing yet\n")

        assert load(Path("a.yaml"), blank={}).data == {}

    def test_a_missing_file_is_named_with_the_nearest(self, workspace: Path) -> None:
        (workspace / "requirements.yaml").write_text("a: 1")

        with pytest.raises(DocumentError) as caught:
            load(Path("requirments.yaml"))

        assert str(caught.value).splitlines() == [
            "requirments.yaml: error[FC005]: no file requirments.yaml",
            "      = help: did you mean requirements.yaml?",
        ]

    @pytest.mark.parametrize("name", ["folder", "fifo", "no/file", "/dev/zero", "a\0b", "x" * 300, "socket"])
    def test_what_is_no_file_is_refused_at_once(self, workspace: Path, name: str) -> None:
        (workspace / "folder").mkdir()
        os.mkfifo(workspace / "fifo")

        with pytest.raises(DocumentError) as caught:
            load(Path(name))

        assert [problem.code for problem in caught.value.problems] == ["FC005"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read_is_refused(self, workspace: Path) -> None:
        (workspace / "a.yaml").write_text("a: 1")
        (workspace / "a.yaml").chmod(0)

        with pytest.raises(DocumentError, match="not allowed to read"):
            load(Path("a.yaml"))

    def test_names_with_control_characters_reach_no_terminal(self, workspace: Path) -> None:
        with pytest.raises(DocumentError) as caught:
            load(Path("a\x1b[31m\udcff.yaml"))

        assert "\x1b" not in str(caught.value)
        str(caught.value).encode()

    @pytest.mark.parametrize("parser", PARSERS)
    @pytest.mark.parametrize("text", ['a: "\\ud800"', 'a: "\\ud83d\\ude00"', "a: \ud800", 'a: "\\U00110000"'])
    def test_half_characters_are_refused(self, text: str, parser: Any) -> None:
        assert refused(text, parser)[0].code in ("FC001", "FC005")

    def test_a_second_document_is_refused(self) -> None:
        assert first("a: 1\n---\nb: 2\n") == (2, 1, "FC001")


SOURCE = """\
plain: one two ${{ a.b }} and ${{ a.b }}
single: 'it''s ${{ a }}'
double: "say \\"hi\\" to ${{ b }}"
literal: |
  first ${{ x }}
    second ${{ x }}
folded: >-
  one
  two ${{ y }}
wrapped: one two
  three four
flow: {list: [a, 'b'], other: 3}
items:
  - id: first
    note: x
  - second
empty:
blank: {in:   }
"""


class TestPlaces:
    document = parse(SOURCE, "f.yaml")

    @pytest.mark.parametrize(
        ("path", "at", "place"),
        [
            (("plain",), "key", (1, 1)),
            (("plain",), "value", (1, 8)),
            (("literal",), "value", (4, 10)),
            (("flow",), "value", (12, 7)),
            (("flow", "list", 1), "value", (12, 18)),
            (("flow", "other"), "key", (12, 24)),
            (("items",), "key", (13, 1)),
            (("items", 0), "value", (14, 5)),
            (("items", 0, "note"), "value", (15, 11)),
            (("items", 1), "value", (16, 5)),
            (("items", 1), "key", (16, 5)),
            (("items", 0, "missing"), "value", (14, 5)),
            (("items", 7, "id"), "value", (14, 3)),
            (("nothing", "at", "all"), "value", (1, 1)),
            (("empty",), "value", (17, 7)),
            (("blank", "in"), "value", (18, 12)),
            ((), "value", (1, 1)),
        ],
    )
    def test_every_key_and_value_has_its_place(self, path: tuple[Any, ...], at: str, place: tuple[int, int]) -> None:
        assert self.document.position(path, at=at) == place

    @pytest.mark.parametrize(
        ("key", "snippet", "occurrence", "place"),
        [
            ("plain", "a.b", 0, (1, 20, 3)),
            ("plain", "a.b", 1, (1, 35, 3)),
            ("plain", "a.b", 2, (1, 8, 33)),
            ("plain", "zzz", 0, (1, 8, 33)),
            ("single", "it's ${{ a }}", 0, (2, 10, 14)),
            ("double", 'say "hi" to', 0, (3, 10, 13)),
            ("literal", "x", 0, (5, 13, 1)),
            ("literal", "x", 1, (6, 16, 1)),
            ("folded", "two ${{ y }}", 0, (9, 3, 12)),
            ("folded", "one two", 0, (8, 3, 3)),
            ("wrapped", "two three", 0, (10, 14, 3)),
        ],
    )
    def test_a_snippet_is_marked_however_the_value_is_written(
        self, key: str, snippet: str, occurrence: int, place: tuple[int, int, int]
    ) -> None:
        problem = self.document.problem((key,), "wrong", code="FC999", snippet=snippet, occurrence=occurrence)

        assert (problem.line, problem.column, problem.width) == place
        assert problem.source == SOURCE.splitlines()[place[0] - 1]

    def test_a_mark_ends_with_its_line(self) -> None:
        problem = self.document.problem(("literal",), "wrong", code="FC999")

        assert str(problem).splitlines()[1:] == ["    4 | literal: |", "      |          ^"]

    def test_an_alias_is_marked_itself_and_its_parts_where_they_were_written(self) -> None:
        document = parse("a: &x\n  b: 1\nc: *x\n", "f")

        assert document.position(("c",)) == (3, 4)
        assert document.position(("c", "b")) == (2, 6)

    def test_a_quiet_problem_shows_no_line(self) -> None:
        assert self.document.problem(("plain",), "wrong", code="FC999", quiet=True).source is None

    @pytest.mark.parametrize(
        "line",
        [
            "a: {api_key: hunter2hunter2, modl: 'x' y}", "a: {b: https://me:hunter2@host/, c: 'x' y}",
            "a: sk-proj-hunter2hunter2 'x': y", "a: {token: 'hunter2secret', b: 'x' y}",
        ],
    )  # fmt: skip
    def test_lines_are_shown_without_what_looks_like_a_secret(self, line: str) -> None:
        text = str(refused(line)[0])

        assert "hunter2" not in text
        assert "***" in text


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_slips_are_explained_as_in_the_golden_files(path: Path) -> None:
    content = path.read_text(encoding="utf-8")

    said = ["\n".join(map(str, refused(content, parser))) for parser in (FastestParser, PurePythonParser)]

    expected = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert said[0] + "\n" == expected
    assert said[1] + "\n" == expected


SAFE = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn"), exclude_characters="\ufeff\ufffe\uffff")
# `safe_dump` writes text such as 0o17 and 1e3 without quotes, which YAML 1.1 takes for text.
TEXT = st.text(SAFE, max_size=20).filter(lambda text: text[:1] not in tuple("+-.0123456789"))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
DATA = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=15
)


@given(
    data=st.dictionaries(TEXT, DATA), flow=st.booleans(), quote=st.sampled_from([None, "'", '"']), wide=st.booleans()
)
def test_what_pyyaml_writes_is_read_back(data: Any, flow: bool, quote: str | None, wide: bool) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, default_style=quote, allow_unicode=wide, width=30)

    assert parse(text, "f").data == data
    assert parse(text, "f", parser=PurePythonParser).data == data


def walk(data: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path, data
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from walk(value, (*path, key))


@settings(deadline=None)
@given(data=st.dictionaries(TEXT, DATA), indent=st.none() | st.integers(0, 3))
def test_json_is_yaml_and_its_parts_stand_where_they_are_said_to_stand(data: Any, indent: int | None) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    lines = text.split("\n")
    document = parse(text, "f")

    assert document.data == data
    for path, value in walk(data):
        line, column = document.position(path)
        start = json.dumps(value, ensure_ascii=False)
        assert lines[line - 1][column - 1 :].startswith(start[0] if isinstance(value, (dict, list)) else start)
        if path and isinstance(path[-1], str):
            line, column = document.position(path, at="key")
            assert lines[line - 1][column - 1 :].startswith(json.dumps(path[-1], ensure_ascii=False))


PIECES = ["a", "b: ", "- ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ", ", ": ", "'", '"', "|\n", "> ", "&x ", "*x",
          "!t ", "!!str ", "#c", "\t", "? ", "<<: ", "---\n", "...\n", "%YAML 1.1\n", "\\", "\\u0041", "1", "0x1F", "~",
          "\u2028", "\x85", "é", "😀", ".inf", "\r\n", "\r", "@", "${{ x }}", "\ufeff", "\0", "\ud800"]  # fmt: skip


def outcome(text: str, parser: Any) -> Document | None:
    problems: tuple[Problem, ...] = ()
    try:
        return parse(text, "f", parser=parser)
    except DocumentError as error:
        problems = error.problems
    assert problems
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)
    "".join(map(str, problems)).encode("utf-8")
    return None


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=15).map("".join) | st.text(max_size=30))
def test_any_text_is_read_or_refused_and_both_parsers_read_the_same(text: str) -> None:
    documents = [outcome(text, parser) for parser in (FastestParser, PurePythonParser)]

    if all(documents):
        fast, pure = documents
        assert fast is not None
        assert pure is not None
        assert fast.data == pure.data
        for path, _ in walk(fast.data):
            assert fast.position(path) == pure.position(path)
            fast.problem(path, "wrong", code="FC999", snippet="a")


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)

    with contextlib.suppress(DocumentError):
        load(path)


class TestManyProblems:
    def test_the_first_hundred_are_raised_as_the_error_of_the_document(self) -> None:
        document = parse("a: 1\n", "f.yaml", error=PipelineError)
        for number in range(MAX_PROBLEMS):
            document.problem(["a"], f"problem {number}", code="FC100")

        with pytest.raises(PipelineError) as error:
            document.problem(["a"], "one more", code="FC100")

        assert str(error.value.problems[0]) == "f.yaml: error[FC002]: more than 100 problems; these are the first"
        assert [problem.message for problem in error.value.problems[1:]] == [f"problem {n}" for n in range(100)]

    def test_warnings_stop_nobody(self) -> None:
        document = parse("a: 1\n", "f.yaml")

        for _ in range(MAX_PROBLEMS + 10):
            document.problem(["a"], "odd", code="FC250", severity="warning")

    def test_a_secret_in_a_line_with_many_problems_is_hidden_in_each(self) -> None:
        document = parse('{"api_key": "hunter2secret", "b": 1, "c": 2}', "f.yaml")

        sources = {document.problem([key], "wrong", code="FC100").source for key in ("b", "c")}

        assert sources == {'{"api_key": "*************", "b": 1, "c": 2}'}
