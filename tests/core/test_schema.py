"""Data against schemas: problems with places for people, sentences for models, no hang, no fetching."""

import json
import random
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowcraft.core.document import parse
from flowcraft.core.judging.dialect import is_sound
from flowcraft.core.judging.keywords import KEYWORDS
from flowcraft.core.schema import _mistakes, check, check_schema, check_value

STAGE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "prompt"],
    "additionalProperties": False,
    "patternProperties": {"^x-": True},
    "properties": {
        "id": {"$ref": "#/$defs/id"},
        "prompt": {
            "type": ["string", "object"],
            "additionalProperties": False,
            "properties": {"file": {"type": "string"}},
        },
        "needs": {"type": "array", "items": {"$ref": "#/$defs/id"}, "uniqueItems": True},
        "model": {"enum": ["cheap", "expensive"]},
        "timeout": {
            "type": ["string", "integer"],
            "pattern": "^[0-9]+[smh]$",
            "x-flowcraft": {"code": "FC120", "say": "a duration such as 5m", "hint": "30s, 10m, 1h30m"},
        },
        "attempts": {"type": "integer", "minimum": 1, "maximum": 20},
        "secret": {"type": "string", "maxLength": 3, "x-flowcraft": {"secret": True, "say": "a short word"}},
    },
    "x-flowcraft": {
        "required": {"id": {"code": "FC102", "say": "a stage needs an 'id'", "hint": "id: plan"}},
        "foreign": {"depends_on": "needs", "shell": "use a stage of its own:  run: ..."},
        "elsewhere": {"cwd": "it belongs to: run"},
        "later": ["tools"],
    },
}
ROOT: dict[str, Any] = {
    "$defs": {
        "stage": STAGE,
        "id": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "x-flowcraft": {"code": "FC103"}},
    }
}


def said(line: str) -> list[str]:
    document = parse(f"stages:\n  - {line}\n", "f.yaml")
    problems = check(document, ("stages", 0), STAGE, root_schema=ROOT, where="stage 'a'")
    return [f"{p.line}:{p.column}:{p.width} {p.code} {p.message} | {p.hint}" for p in problems]


_NAMES = st.sampled_from(["a", "b"])
_VALUES = st.sampled_from(
    [*(None, True, 0, -1, 1.0, 1.5, "", "a", "object", "string", "any", {}, []), ["a"], ["a", "a"], [1], {"a": True}]
)
ANY_SCHEMAS = st.recursive(
    st.dictionaries(st.sampled_from([*sorted(KEYWORDS), "x-a", "requird"]), _VALUES, max_size=3),
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["object", ["array", "null"], "text"])},
        optional={
            **dict.fromkeys(("properties", "$defs", "dependentSchemas"), st.dictionaries(_NAMES, inner, max_size=2)),
            **dict.fromkeys(("allOf", "oneOf", "prefixItems"), st.lists(inner | st.booleans(), max_size=2)),
            **dict.fromkeys(("items", "additionalProperties", "not", "if", "then"), inner | st.booleans()),
            "required": st.lists(_NAMES, max_size=2),
            "$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/zz", "x.json"]),
        },
    ),
    max_leaves=4,
)


class TestProblems:
    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (
                "{id: a, prompt: x, promt: y}",
                "2:24:5 FC101 unknown key 'promt' in stage 'a' | did you mean 'prompt'?",
            ),
            (
                "{id: a, prompt: x, depends_on: y}",
                "2:24:10 FC101 unknown key 'depends_on' in stage 'a' | in FlowCraft this is 'needs'.",
            ),
            (
                "{id: a, prompt: x, shell: y}",
                "2:24:5 FC101 unknown key 'shell' in stage 'a' | use a stage of its own:  run: ...",
            ),
            (
                "{id: a, prompt: x, cwd: y}",
                "2:24:3 FC107 'cwd' cannot be used in stage 'a' | it belongs to: run",
            ),
            (
                "{id: a, prompt: x, tools: y}",
                "2:24:5 FC101 unknown key 'tools' in stage 'a' | this version of FlowCraft does not have it yet",
            ),
            (
                "{id: a, prompt: {fil: x}}",
                "2:22:3 FC101 unknown key 'fil' in 'prompt' of stage 'a' | did you mean 'file'?",
            ),
            ("{prompt: x}", "2:5:1 FC102 a stage needs an 'id' | id: plan"),
            ("{id: a}", "2:5:1 FC100 'prompt' is missing in stage 'a' | None"),
            (
                "{id: A-b, prompt: x}",
                "2:10:3 FC103 'id' is 'A-b', text that matches ^[a-z][a-z0-9_]*$ is wanted | None",
            ),
            ("{id: 3, prompt: x}", "2:10:1 FC103 'id' is 3, text is wanted | None"),
            ("{id: a, prompt: }", "2:20:1 FC100 'prompt' is empty, text or a map is wanted | None"),
            ("{id: a, prompt: x, needs: a}", "2:31:1 FC100 'needs' is 'a', a list is wanted | None"),
            ("{id: a, prompt: x, needs: [b, B]}", None),
            ("{id: a, prompt: x, needs: [b, b]}", "2:31:1 FC100 'needs' has the same item twice | None"),
            (
                "{id: a, prompt: x, model: chep}",
                "2:31:4 FC100 'model' is 'chep', one of 'cheap', 'expensive' is wanted | did you mean 'cheap'?",
            ),
            (
                "{id: a, prompt: x, timeout: [5m]}",
                "2:33:1 FC120 'timeout' is a list, a duration such as 5m is wanted | 30s, 10m, 1h30m",
            ),
            (
                "{id: a, prompt: x, timeout: soon}",
                "2:33:4 FC120 'timeout' is 'soon', a duration such as 5m is wanted | 30s, 10m, 1h30m",
            ),
            ("{id: a, prompt: x, attempts: 0}", "2:34:1 FC100 'attempts' is 0, at least 1 is wanted | None"),
            ("{id: a, prompt: x, attempts: true}", "2:34:4 FC100 'attempts' is true, a whole number is wanted | None"),
            ("{id: a, prompt: x, secret: hunter2}", "2:32:7 FC100 'secret' is not a short word | None"),
            ("just text", "2:5:9 FC100 stage 'a' is 'just text', a map is wanted | None"),
        ],
    )
    def test_each_mistake_has_its_place_its_words_and_its_hint(self, line: str, problem: str | None) -> None:
        found = said(line)

        if problem is None:
            assert found[0].startswith("2:35:1 FC103 item 2 of 'needs' is 'B'")
        else:
            assert found == [problem]

    def test_all_mistakes_are_told(self) -> None:
        assert len(said("{promt: x, attempts: 0, model: 3, zzz: 1}")) == 6

    def test_nothing_is_said_of_good_data(self) -> None:
        assert said("{id: a, prompt: {file: x}, needs: [], x-mine: 1, timeout: 5m}") == []

    def test_a_secret_and_its_line_are_not_repeated(self) -> None:
        document = parse("{id: a, prompt: x, secret: hunter2}", "f")

        text = "".join(map(str, check(document, (), STAGE, root_schema=ROOT)))

        assert "hunter2" not in text

    def test_data_nested_too_deeply_for_a_schema_is_a_problem(self) -> None:
        deep = {"items": {"$ref": "#"}}
        for _ in range(60):
            deep = {"allOf": [deep], "items": {"$ref": "#"}}
        document = parse("[" * 99 + "]" * 99, "f")

        assert [problem.code for problem in check(document, (), deep)] == ["FC002"]

    def test_alternatives_are_reported_in_one_sentence(self) -> None:
        document = parse("a: 1", "f")

        problems = check(document, ("a",), {"anyOf": [{"type": "string"}, {"type": "array"}]}, where="'a'")

        assert len(problems) == 1
        assert problems[0].message.startswith("'a' ")


class TestAnswers:
    @pytest.mark.parametrize(
        ("schema", "value", "sentence"),
        [
            ({"type": "object"}, "x", "the answer is 'x', an object is wanted"),
            ({"type": "object", "required": ["a"]}, {}, "the answer lacks the key 'a'"),
            ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["x", 3]}, "a[1] is 3, a string is wanted"),
            (
                {"properties": {"name": {}}, "additionalProperties": False},
                {"nmae": 1},
                "the answer has an unknown key 'nmae'; did you mean 'name'?",
            ),
            ({"type": ["array", "null"]}, {}, "the answer is an object, an array or null is wanted"),
            ({"type": "string"}, None, "the answer is null, a string is wanted"),
            ({"maxLength": 2}, "abc", "the answer has 3 characters, at most 2 are wanted"),
            ({"minItems": 2}, [1], "the answer has 1 items, at least 2 are wanted"),
            ({"maxProperties": 0}, {"a": 1}, "the answer has 1 keys, at most 0 are wanted"),
            ({"exclusiveMaximum": 3}, 3, "the answer is 3, less than 3 is wanted"),
            ({"multipleOf": 2}, 3, "the answer is 3, a multiple of 2 is wanted"),
            ({"const": {"a": 1}}, 3, 'the answer is 3, {"a": 1} is wanted'),
            ({"not": {}}, 3, "the answer is what the schema excludes"),
            ({"properties": {"a": False}}, {"a": 1}, "must not be there"),
            ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "the answer has the same item twice"),
            ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, 5, "the answer fits several of the alternatives"),
            ({"contains": {"const": 1}}, [2], "the answer holds too few"),
            ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "'b' is a dependency of 'a'"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_path(self, schema: dict[str, Any], value: Any, sentence: str) -> None:
        assert check_schema(schema) == []
        [found] = check_value(value, schema)
        assert sentence in found

    def test_good_answers_pass(self) -> None:
        assert check_value({"a": [True, 1.5, None]}, {"properties": {"a": {"uniqueItems": True}}}) == []

    def test_one_and_true_are_different_items(self) -> None:
        assert check_value([1, True, 0, False, "1"], {"uniqueItems": True}) == []

    def test_sentences_are_few_and_short(self) -> None:
        found = check_value({"x" * 1000: ["y" * 1000] * 100}, {"additionalProperties": {"items": {"type": "null"}}})

        assert len(found) == 20
        assert max(map(len, found)) <= 500

    @pytest.mark.parametrize(
        "value", [float("nan"), [float("inf")], {"a": -float("inf")}, [10**4400], {1: 2}, {"a": {3}}, b"x", (1,)]
    )
    def test_what_json_does_not_have_is_refused(self, value: Any) -> None:
        assert len(check_value(value, {"minimum": 0})) == 1

    def test_a_value_that_holds_itself_is_refused(self) -> None:
        endless: list[Any] = []
        endless.append(endless)

        assert len(check_value(endless, {})) == 1

    def test_control_characters_of_an_answer_do_not_come_back(self) -> None:
        found = check_value({"a\x1b[2J": "b\x1b]52;c;x\x07"}, {"additionalProperties": {"enum": [1]}})

        assert "\x1b" not in found[0]

    @settings(deadline=None)
    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 1.5]) | st.text("ab", max_size=2),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            max_leaves=6,
        ),
        schema=st.recursive(
            st.sampled_from(
                [
                    {"type": "string"}, {"type": ["integer", "null"]}, {"enum": [1, "a", None]}, {"const": 1},
                    {"minimum": 1}, {"maxLength": 1}, {"pattern": "^a"}, {"minItems": 1}, {"uniqueItems": True},
                    {"required": ["a"]}, {"$ref": "#/$defs/x"}, {"multipleOf": 2}, {"maxProperties": 1}, {},
                    {"propertyNames": {"pattern": "a|b"}},
                ]
            ),
            lambda inner: st.dictionaries(
                st.sampled_from(["items", "not", "contains", "if", "then", "else", "additionalProperties"]), inner
            )
            | inner.map(lambda one: {"properties": {"a": one}, "additionalProperties": False})
            | st.lists(inner, min_size=1, max_size=2).flatmap(
                lambda many: st.sampled_from(["allOf", "anyOf", "oneOf", "prefixItems"]).map(lambda key: {key: many})
            ),
            max_leaves=4,
        ),
    )  # fmt: skip
    def test_agrees_with_jsonschema(self, value: Any, schema: dict[str, Any]) -> None:
        schema = {**schema, "$defs": {"x": {"type": "array"}}}

        assert check_schema(schema) == []
        assert (check_value(value, schema) == []) is Draft202012Validator(schema).is_valid(value)


def chain(count: int) -> dict[str, Any]:
    """A schema whose alternatives double with each link."""
    links = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(count)}
    return {"$defs": {**links, f"a{count}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def line(count: int) -> dict[str, Any]:
    """A schema that leads from reference to reference."""
    links = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in reversed(range(count))}
    return {"$defs": {f"a{count}": {"type": "string"}, **links}, "$ref": "#/$defs/a0"}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


class TestUserSchemas:
    @pytest.mark.parametrize(
        ("schema", "words"),
        [
            ({"$ref": "http://127.0.0.1:9/x"}, "only references inside"),
            ({"items": {"$ref": "file:///etc/passwd"}}, "only references inside"),
            ({"$ref": "other.json#/a"}, "only references inside"),
            ({"$ref": "#anchor"}, "only references inside"),
            ({"$ref": "#/$defs/nothing"}, "not in the schema"),
            ({"$ref": "#/title", "title": "x"}, "not in the schema"),
            ({"$ref": "#"}, "without end"),
            ({"allOf": [{"$ref": "#"}]}, "without end"),
            ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "without end"),
            (chain(30), "multiplies"),
            ({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "without end"),
            ({"dependentSchemas": {"a": {"$ref": "#"}}}, "without end"),
            ({"if": {"type": "string"}, "then": {"not": {"$ref": "#"}}}, "without end"),
            (line(101), "more than 100 times"),
            ({"items": line(101)["$defs"]["a0"], **line(101), "$ref": "#/$defs/a50"}, "more than 100 times"),
            (nested(60), "deeper than 50"),
            ({"enum": ["x" * 70_000]}, "larger than 64 KiB"),
            ({"pattern": "(?=a)b"}, "'pattern' that cannot be used"),
            ({"patternProperties": {"^(a+)+$": {}}}, "unknown keyword 'patternProperties'"),
            ({"$dynamicRef": "#x"}, "unknown keyword"),
            ({"unevaluatedItems": False}, "unknown keyword"),
            ({"requird": ["a"]}, "did you mean 'required'?"),
            ({"properties": {"a": {"typ": "string"}}}, "properties.a has an unknown keyword 'typ'"),
            ({"type": "strin"}, "did you mean 'string'?"),
            ({"type": ["string", "int"]}, "unknown type 'int'"),
            ({"minLength": "a"}, "'minLength' is 'a', a whole number is wanted"),
            ({"items": 3}, "items must be a map"),
            ({"properties": []}, "'properties' is an array"),
            ({"required": "a"}, "'required' is 'a'"),
            ({"allOf": []}, "'allOf' has 0 items"),
            ({"enum": [float("nan")]}, "not JSON"),
            ({"const": {1, 2}}, "not JSON"),
            ({"properties": {"a": {"$id": "http://example.com/x"}}}, "$id"),
            ([], "a schema is a map"),
            ("string", "a schema is a map"),
        ],
    )
    def test_what_cannot_be_used_is_refused_with_the_reason(self, schema: Any, words: str) -> None:
        assert words in "\n".join(check_schema(schema))

    def test_a_loop_that_reads_on_is_fine(self) -> None:
        tree = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}

        assert check_schema(tree) == []
        assert check_value({"next": {"next": {"nxt": 1}}}, tree)[0].startswith("next.next has an unknown key 'nxt'")

    def test_a_long_line_of_references_can_be_followed(self) -> None:
        schema = line(99)

        assert check_schema(schema) == []
        assert check_value("a", schema) == []
        assert len(check_value(1, schema)) == 1

    def test_alternatives_that_are_many_but_do_not_multiply_are_fine(self) -> None:
        schema = {"$defs": {"a": {"type": "string", "minLength": 1}}, "anyOf": [{"$ref": "#/$defs/a"}] * 2_000}

        assert check_schema(schema) == []
        assert check_value("a", schema) == []
        assert check_value("", schema) == ["the answer fits none of the alternatives"]

    def test_references_follow_the_rules_of_json_pointers(self) -> None:
        schema = {"$id": "urn:x", "$defs": {"a/b~c": {"type": "string"}}, "$ref": "#/$defs/a~1b~0c"}

        assert check_schema(schema) == []
        assert len(check_value(3, schema)) == 1

    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            ({"pattern": "^(a+)+$"}, "a" * 50_000 + "!"),
            ({"items": {"pattern": "(x+x+)+y"}}, ["x" * 5_000] * 20),
            ({"uniqueItems": True}, [{"n": n, "m": [n]} for n in range(20_000)]),
            ({"items": {"enum": [str(n) for n in range(8_000)]}}, ["x"] * 100_000),
            ({"anyOf": [{"items": {"type": "string"}} for _ in range(1_000)]}, [1] * 50_000),
            ({"anyOf": [{"type": "string"}] * 3_000}, ["x" * 10] * 50_000),
            ({"items": {"$ref": "#"}, "type": "array"}, json.loads("[" * 900 + "]" * 900)),
            ({"pattern": "a[^b]{400}c"}, "".join(random.Random(1).choices("axy", k=200_000))),
        ],
        ids=["nested repeats", "many", "unique", "enum", "work", "messages", "deep", "wide pattern"],
    )
    def test_hostile_answers_are_judged_or_refused_in_a_moment(self, schema: dict[str, Any], value: Any) -> None:
        assert check_schema(schema) == []
        if schema != {"uniqueItems": True}:
            assert check_value(value, schema)
        else:
            assert check_value(value, schema) == []

    @pytest.mark.parametrize("reference", ["other.json", "", "#x", "other.json#/$defs/a", "#/$defs/b"])
    def test_an_unchecked_schema_cannot_refer_to_elsewhere_either(self, reference: str) -> None:
        found = check_value(3, {"$ref": reference, "$defs": {"a": {}}})

        assert found == [f"the schema refers to '{reference}', which is not in it"]

    def test_nothing_is_fetched(self, unused_server: list[str]) -> None:
        schema = {"$ref": unused_server[0], "$id": unused_server[0], "$schema": unused_server[0]}

        assert check_value({"a": 1}, schema) == [f"the schema refers to '{unused_server[0]}', which is not in it"]
        assert len(unused_server) == 1

    @settings(deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "type",
                            "items",
                            "$ref",
                            "enum",
                            "allOf",
                            "properties",
                            "pattern",
                            "required",
                            "minimum",
                            "$defs",
                            "if",
                        ]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_schema_is_accepted_or_refused_and_then_usable(self, schema: Any) -> None:
        if check_schema(schema) == []:
            for value in (None, 1, "a", [1, "a"], {"a": {}}):
                check_value(value, schema)

    @settings(deadline=None)
    @given(ANY_SCHEMAS)
    def test_with_a_sound_schema_nothing_is_wrong_to_the_metaschema_either(self, schema: dict[str, Any]) -> None:
        assert not is_sound(schema, json.dumps(schema)) or _mistakes(schema) == []

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "additionalProperties": False},
            {"type": "array", "maxItems": 20, "items": {"required": ["line"], "properties": {"line": {"minimum": 1}}}},
            {"$defs": {"a": {"pattern": "^a+$"}}, "anyOf": [{"$ref": "#/$defs/a"}, {"type": ["null"]}, True]},
            {"if": {"required": ["a"]}, "then": {"dependentRequired": {"a": ["b"]}}, "x-note": 1},
        ],
    )
    def test_the_schemas_of_most_answers_are_sound(self, schema: dict[str, Any]) -> None:
        assert is_sound(schema, json.dumps(schema))


@pytest.fixture
def unused_server() -> Iterator[list[str]]:
    """An address, followed by what was asked of it."""
    seen: list[str] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            seen.append("asked")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen.append(f"http://127.0.0.1:{server.server_address[1]}/x")
        yield seen
        server.shutdown()
