"""The command line from argv to output and exit code, against a chat server on loopback."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from jsonschema import Draft202012Validator
from servers import ChatServer, answer, delta, status, stream

from flowcraft.cli.main import run_command

HELLO = """\
    flowcraft: 1
    inputs:
      request: string
    stages:
      - id: requirements_analysis
        prompt: List requirements of ${{ inputs.request }}
      - id: architecture_design
        prompt: Design ${{ stages.requirements_analysis.output }}
    outputs:
      design: ${{ stages.architecture_design.output }}
    """


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(answer("the answer")) as running:
        yield running


@pytest.fixture
def settings(workspace: Path, server: ChatServer) -> Path:
    path = workspace / "settings.yaml"
    path.write_text(
        dedent(f"""\
        llm:
          cheap_model: small
          expensive_model: large
          retries: 0
          models:
            small: {{provider: openai, model: small-1, base_url: "{server.base_url}"}}
            large: {{provider: openai, model: large-1, base_url: "{server.base_url}"}}
        """)
    )
    return path


@pytest.fixture
def hello(workspace: Path) -> Path:
    path = workspace / "hello.yaml"
    path.write_text(dedent(HELLO))
    return path


@pytest.mark.usefixtures("settings", "hello")
class TestRun:
    def test_asks_the_right_model_for_each_stage_and_prints_the_outputs(
        self, server: ChatServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run_command(["run", "hello.yaml", "-i", "request=a todo app"]) == 0

        assert [request.body["model"] for request in server.requests] == ["small-1", "large-1"]
        out = capsys.readouterr().out
        assert "requirements_analysis: started, small [cheap]" in out
        assert "architecture_design: started, large [expensive]" in out
        assert "design: the answer" in out
        assert "\x1b" not in out

    def test_json_is_alone_on_stdout(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["run", "hello.yaml", "-i", "request=x", "--json"]) == 0

        record = json.loads(capsys.readouterr().out)
        assert record["status"] == "succeeded"
        assert record["outputs"] == {"design": "the answer"}
        assert [stage["path"] for stage in record["stages"]] == ["requirements_analysis", "architecture_design"]

    def test_an_input_that_is_no_text_is_refused(self, server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["run", "hello.yaml", "-i", "request=\udcff"]) == 2

        assert "input 'request' is not UTF-8 text" in capsys.readouterr().err
        assert server.requests == []

    def test_an_input_can_come_from_a_file(self, server: ChatServer, workspace: Path) -> None:
        (workspace / "request.txt").write_text("from a file")

        assert run_command(["run", "hello.yaml", "-i", "request=@request.txt"]) == 0

        assert "from a file" in server.requests[0].body["messages"][-1]["content"]

    def test_two_at_signs_mean_one(self, server: ChatServer) -> None:
        assert run_command(["run", "hello.yaml", "-i", "request=@@home"]) == 0

        assert "@home" in server.requests[0].body["messages"][-1]["content"]

    def test_a_model_can_be_named_for_a_stage(self, server: ChatServer) -> None:
        run_command(["run", "hello.yaml", "-i", "request=x", "--model", "requirements_analysis=large"])

        assert [request.body["model"] for request in server.requests] == ["large-1", "large-1"]

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["hello.yaml"], "request"),
            (["hello.yaml", "-i", "request"], "has no '='"),
            (["hello.yaml", "-i", "request=a", "-i", "request=b"], "given twice"),
            (["hello.yaml", "-i", "request=@nothing.txt"], "nothing.txt"),
            (["hello.yaml", "-i", "request=x", "-i", "reqest=y"], "reqest"),
            (["hello.yaml", "-i", "request=x", "--model", "coding=small"], "no stage 'coding'"),
            (["hello.yaml", "-i", "request=x", "--model", "architecture_design=smal"], "did you mean 'small'?"),
            (["missing.yaml"], "missing.yaml"),
            (["."], "folder"),
            (["hello.yaml", "-i", "request=x", "--settings", "no.yaml"], "no.yaml"),
            (["hello.yaml", "-i", "request=x", "--jobs", "0"], "--jobs"),
        ],
    )
    def test_wrong_usage_exits_with_2_and_calls_nothing(
        self, arguments: list[str], text: str, server: ChatServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run_command(["run", *arguments]) == 2

        err = capsys.readouterr().err
        assert text in err
        assert "Traceback" not in err
        assert server.requests == []

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (status(401, '{"error": {"message": "bad key"}}', {"x-request-id": "req-7"}), ["openai", "401", "req-7"]),
            (status(404, '{"error": {"message": "no such model"}}'), ["404"]),
            (status(429, '{"error": {"message": "slow down"}}'), ["429"]),
            (status(500, "oops"), ["500"]),
            (status(200, "<html>login</html>", {"Content-Type": "text/html"}), ["<html>login</html>"]),
        ],
        ids=["401", "404", "429", "500", "html"],
    )
    def test_a_failing_service_exits_with_1_and_says_who_what_and_what_to_do(
        self, reply: object, words: list[str], settings: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with ChatServer(reply) as broken:
            text = settings.read_text()
            start = text.index("http://")
            old = text[start : text.index('"', start)]
            settings.write_text(text.replace(old, broken.base_url))

            assert run_command(["run", "hello.yaml", "-i", "request=x"]) == 1

        captured = capsys.readouterr()
        for word in [*words, "= help:"]:
            assert word in captured.out + captured.err
        assert "Traceback" not in captured.out + captured.err

    def test_a_server_that_is_down_exits_with_1(
        self, server: ChatServer, settings: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings.write_text(settings.read_text().replace(server.base_url, "http://127.0.0.1:9/v1"))

        assert run_command(["run", "hello.yaml", "-i", "request=x"]) == 1

        assert "cannot connect to 127.0.0.1" in capsys.readouterr().out


@pytest.mark.usefixtures("settings", "hello")
class TestPlan:
    def test_shows_the_order_the_model_and_why(self, server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["plan", "hello.yaml"]) == 0

        out = capsys.readouterr().out
        assert "llm.expensive_stages" in out
        assert "settings.yaml:2" in out
        assert server.requests == []

    def test_json_holds_one_row_per_stage(self, capsys: pytest.CaptureFixture[str]) -> None:
        run_command(["plan", "hello.yaml", "--json"])

        rows = json.loads(capsys.readouterr().out)["stages"]
        assert [(row["order"], row["stage"], row["tier"]) for row in rows] == [
            (1, "requirements_analysis", "cheap"),
            (2, "architecture_design", "expensive"),
        ]


@pytest.mark.usefixtures("settings", "hello")
class TestValidate:
    def test_good_files_are_ok(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["validate", "hello.yaml", "settings.yaml"]) == 0

        assert capsys.readouterr().out == "hello.yaml: ok\nsettings.yaml: ok\n"

    def test_all_problems_of_all_files_are_printed(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (workspace / "bad.yaml").write_text(
            "flowcraft: 1\nstages:\n  - id: a\n    promt: x\n  - id: a\n    prompt: y\n"
        )
        (workspace / "wrong.yaml").write_text("llm:\n  cheap_modell: x\n")

        assert run_command(["validate", "bad.yaml", "wrong.yaml"]) == 2

        out = capsys.readouterr().out
        assert "bad.yaml:4:5: error[FC101]" in out
        assert "did you mean 'prompt'?" in out
        assert "FC104" in out
        assert "wrong.yaml:2:3" in out

    def test_json_and_github_formats(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (workspace / "bad.yaml").write_text("flowcraft: 1\nstages: []\n")

        assert run_command(["validate", "bad.yaml", "--format", "json"]) == 2
        assert json.loads(capsys.readouterr().out)[0]["file"] == "bad.yaml"

        assert run_command(["validate", "bad.yaml", "--format", "github"]) == 2
        assert capsys.readouterr().out.startswith("::error file=bad.yaml,line=2")

    def test_an_unknown_model_of_a_stage_is_found(self, hello: Path, capsys: pytest.CaptureFixture[str]) -> None:
        hello.write_text(hello.read_text().replace("    prompt: Design", "    model: larg\n    prompt: Design"))

        assert run_command(["validate", "hello.yaml"]) == 2

        assert "did you mean 'large'?" in capsys.readouterr().out

    def test_an_unknown_model_in_the_settings_is_found(
        self, settings: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings.write_text(settings.read_text().replace("cheap_model: small", "cheap_model: smal"))

        assert run_command(["validate", "settings.yaml"]) == 2

        assert "settings.yaml:2:16: error[FC129]" in capsys.readouterr().out


@pytest.mark.usefixtures("settings")
class TestChat:
    def test_prints_the_answer(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["chat", "hello"]) == 0

        assert capsys.readouterr().out == "the answer\n"

    def test_streams_the_answer(self, server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["chat", "hello", "--stream", "--stage", "architecture_design"]) == 0

        assert capsys.readouterr().out == "the answer\n"
        assert server.requests[0].body["stream"] is True
        assert server.requests[0].body["model"] == "large-1"

    def test_json_holds_the_response(self, capsys: pytest.CaptureFixture[str]) -> None:
        run_command(["chat", "hello", "--json"])

        response = json.loads(capsys.readouterr().out)
        assert response["content"] == "the answer"
        assert response["provider"] == "openai"

    def test_control_characters_of_an_answer_are_shown_not_sent(
        self, settings: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with ChatServer(answer("a\x1b]52;c;aGk=\x07b\u202ec")) as hostile:
            settings.write_text(settings.read_text().replace(server.base_url, hostile.base_url))
            run_command(["chat", "hello"])

        assert capsys.readouterr().out == "a\\x1b]52;c;aGk=\\x07b\\u202ec\n"

    def test_an_error_in_the_middle_of_an_answer_has_a_line_of_its_own(
        self, settings: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with ChatServer(stream(delta({"content": "half an ans"}))) as broken:
            settings.write_text(settings.read_text().replace(server.base_url, broken.base_url))
            assert run_command(["chat", "hello", "--stream"]) == 1

        printed = capsys.readouterr()
        assert printed.out == "half an ans\n"
        assert printed.err.startswith("error: ")

    def test_nothing_is_printed_of_an_answer_that_never_began(
        self, settings: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with ChatServer(status(400)) as refusing:
            settings.write_text(settings.read_text().replace(server.base_url, refusing.base_url))
            assert run_command(["chat", "hello", "--stream"]) == 1

        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("reason", "note"),
        [("length", "cut off at max_tokens"), ("content_filter", "the service held a part of the answer back")],
    )
    @pytest.mark.parametrize("mode", ["--stream", "--no-stream"])
    def test_an_answer_that_is_not_whole_says_so(
        self, mode: str, reason: str, note: str, settings: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with ChatServer(answer("half", finish_reason=reason)) as short:
            settings.write_text(settings.read_text().replace(server.base_url, short.base_url))
            assert run_command(["chat", "hello", mode]) == 0

        assert note in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["", " \n", "-"])
    def test_an_empty_question_is_not_sent(
        self, text: str, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))

        assert run_command(["chat", text]) == 2
        assert "there is no question" in capsys.readouterr().err
        assert server.requests == []

    def test_a_question_can_come_from_stdin(self, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffGrüße".encode()), encoding="ascii"))
        run_command(["chat", "-"])

        assert server.requests[0].body["messages"][0]["content"] == "Grüße"

    @pytest.mark.parametrize("arguments", [["\udcff"], ["hello", "--system", "\udcff"], ["-"]])
    def test_bytes_that_are_no_text_are_not_sent(
        self,
        arguments: list[str],
        server: ChatServer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))

        assert run_command(["chat", *arguments]) == 2
        assert "is not UTF-8 text" in capsys.readouterr().err
        assert server.requests == []

    def test_an_argument_that_python_took_for_bytes_is_read_as_utf_8(self, server: ChatServer) -> None:
        run_command(["chat", os.fsdecode("Grüße".encode()).encode("utf-8").decode("ascii", "surrogateescape")])

        assert server.requests[0].body["messages"][0]["content"] == "Grüße"


@pytest.mark.usefixtures("settings")
def test_models_lists_what_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["models"]) == 0

    out = capsys.readouterr().out
    assert "small" in out
    assert "embedded" in out


def test_models_lists_what_the_tiers_name_with_its_provider(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "settings.yaml").write_text("llm: {cheap_model: [openai/gpt, nobody], expensive_model: openai/gpt}")
    assert run_command(["models", "--json"]) == 0

    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["openai/gpt"]["tier"] == "cheap, expensive"
    assert rows["openai/gpt"]["state"] == "needs an API key: set OPENAI_API_KEY"
    assert rows["nobody"]["tier"] == "cheap"
    assert rows["nobody"]["state"].startswith("unknown model; known: ")


def test_a_pipeline_is_not_valid_while_its_settings_name_a_model_that_nobody_knows(
    hello: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "settings.yaml").write_text("llm: {cheap_model: nobody, expensive_model: embedded}")

    assert run_command(["validate", hello.name, hello.name]) == 2
    out = capsys.readouterr().out
    assert out.count("settings.yaml:1:20: error[FC129]: unknown model 'nobody'") == 1


def test_models_without_settings_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["models"]) == 0

    assert "no settings file" in capsys.readouterr().err


@pytest.mark.usefixtures("settings")
def test_settings_show_names_the_origin_of_each_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["settings", "show"]) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["llm.cheap_model", "small", "settings.yaml:2"] in rows
    assert ["llm.retries", "0", "settings.yaml:4"] in rows


@pytest.mark.parametrize("name", ["pipeline", "settings", "report"])
def test_schema_prints_json_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["schema", name]) == 0

    assert json.loads(capsys.readouterr().out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_init_writes_files_that_are_valid(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["init", "my project"]) == 0
    folder = workspace / "my project"

    assert run_command(["validate", str(folder / "settings.yaml"), str(folder / "hello.yaml")]) == 0
    assert run_command(["init", "my project"]) == 2
    assert "already there" in capsys.readouterr().err


def test_the_schemas_that_init_names_for_editors_are_there_and_take_the_files(workspace: Path) -> None:
    assert run_command(["init", "new"]) == 0

    for name in ("settings.yaml", "hello.yaml"):
        text = (workspace / "new" / name).read_text()
        named = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
        schema = json.loads((workspace / "new" / named).read_text())
        Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_an_empty_settings_file_is_valid_as_it_is_for_a_run(workspace: Path) -> None:
    (workspace / "settings.yaml").touch()
    (workspace / "p.yaml").touch()

    assert run_command(["validate", "settings.yaml"]) == 0
    assert run_command(["validate", "p.yaml"]) == 2


def test_settings_in_the_place_of_a_pipeline_are_named_as_such(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", str(settings)]) == 2

    told = capsys.readouterr().err
    assert "settings.yaml:1:1: error[FC003]: these are settings, not a pipeline" in told
    assert told.count("error[") == 1


def test_text_that_looks_like_a_value_is_told_and_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = workspace / "p.yaml"
    file.write_text("flowcraft: 1\nstages:\n  - {id: a, run: \"echo '{{ stages.a.output }}'\"}\n")

    assert run_command(["run", str(file)]) == 0

    assert "p.yaml:3:25: warning[FC250]" in capsys.readouterr().err


def test_settings_show_as_json_keeps_lists_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["settings", "show", "--json"]) == 0

    rows = {row["key"]: row["value"] for row in json.loads(capsys.readouterr().out)}
    assert rows["llm.expensive_stages"] == ["security_review", "architecture_design", "complex_debugging"]
    assert (rows["llm.retries"], rows["llm.timeouts.total"]) == (2, 600)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["completion", shell]) == 0

    assert "_FLOWCRAFT_COMPLETE" in capsys.readouterr().out


def test_an_unknown_command_has_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["validte", "x"]) == 2

    assert "did you mean 'validate'?" in capsys.readouterr().err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0

    assert "Run a pipeline." in capsys.readouterr().out
