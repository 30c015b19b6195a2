"""Files under `reads`: how they reach the model, what is refused, kept and counted."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedProvider, llm_of, settings_of
from pictures import gif, jpeg, png, webp
from servers import ChatServer, answer

from flowcraft.cli.main import run_command
from flowcraft.core.errors import UsageError
from flowcraft.core.values import ModelSettings, Origin, Prices
from flowcraft.llm.base import ChatRequest, Delta, LLMMessage, Usage
from flowcraft.llm.image_tokens import most_tokens
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.parts import ImagePart, TextPart
from flowcraft.llm.routing import Choice
from flowcraft.pipeline.load import load
from flowcraft.runner.attachments import MAX_IMAGE_BYTES, MAX_IMAGES
from flowcraft.runner.bounds import worst_case
from flowcraft.runner.ceiling import Estimator
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable
from flowcraft.runner.store.fingerprint import call_key
from flowcraft.runner.workspace import Workspace

STAGE = "  - {id: a, prompt: what is it?, reads: ['in/*']}\n"


class Seeing(ScriptedProvider):
    takes_images = True


@pytest.fixture(autouse=True)
def folder(workspace: Path) -> Path:
    (workspace / "in").mkdir()
    return workspace / "in"


def pipeline(stages: str = STAGE) -> Path:
    Path("p.yaml").write_text(f"flowcraft: 1\nstages:\n{stages}")
    return Path("p.yaml")


def run_(model: ScriptedProvider, stages: str = STAGE, **durable: Any) -> RunRecord:
    with llm_of(model) as llm:
        return run_pipeline(pipeline(stages), llm=llm, durable=Durable(**durable) if durable else None)


def test_each_file_stands_under_its_path_in_sorted_order(folder: Path) -> None:
    (folder / "c.png").write_bytes(png())
    (folder / "b.txt").write_text("some text")
    (folder / "a.jpg").write_bytes(jpeg())
    (folder / "d.svg").write_text("<svg/>")
    model = Seeing("a cat")

    record = run_(model)

    assert record.status == "succeeded"
    assert model.last.messages[-1].content == (
        TextPart("what is it?\n\nin/a.jpg\n"),
        ImagePart(data=jpeg(), name="in/a.jpg"),
        TextPart("\n\nin/b.txt\n```\nsome text\n```\n\nin/c.png\n"),
        ImagePart(data=png(), name="in/c.png"),
        TextPart("\n\nin/d.svg\n```\n<svg/>\n```"),
    )


def test_the_content_of_a_file_counts_not_its_name(folder: Path) -> None:
    (folder / "x.txt").write_bytes(webp())
    (folder / "y.png").write_text("text")
    model = Seeing("ok")

    run_(model)

    parts = model.last.messages[-1].parts
    assert [type(part) for part in parts] == [TextPart, ImagePart, TextPart]
    assert parts[1] == ImagePart(data=webp(), name="in/x.txt", media_type="image/webp")


def test_text_alone_stays_one_text(folder: Path) -> None:
    (folder / "a.txt").write_text("hello\n")
    model = ScriptedProvider("ok")
    run_(model)
    assert model.last.messages[-1].content == "what is it?\n\nin/a.txt\n```\nhello\n```"


def test_an_instruction_for_json_follows_the_images(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())
    model = Seeing("no", '{"x": 1}')

    record = run_(model, "  - {id: a, prompt: look, reads: ['in/*'], output: json}\n")

    assert record.outcomes[0].output == {"x": 1}
    first, again = model.requests
    assert first.messages[-1].parts[-1].shown.strip().startswith("Answer with one JSON value")
    assert again.messages[0] == first.messages[0]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"big.png": png(pad=MAX_IMAGE_BYTES)}, "FC303: the image 'in/big.png' is larger than 5 MiB"),
        ({"huge.png": png(pad=2 * MAX_IMAGE_BYTES)}, "FC303: the image 'in/huge.png' is larger than 5 MiB"),
        ({f"{n}.png": png(pad=MAX_IMAGE_BYTES - 100) for n in range(5)}, "FC303: with 'in/4.png' there are more than"),
        ({f"{n:03}.gif": gif() for n in range(MAX_IMAGES + 1)}, "FC303: with 'in/100.gif' there are more than 100"),
        ({"data.bin": b"\x00\x01\xfe\xff"}, "FC304: 'in/data.bin' is neither text in UTF-8 (byte 2) nor an image"),
    ],
    ids=["large", "larger", "together", "many", "binary"],
)
def test_what_cannot_be_shown_ends_the_stage_before_a_call(folder: Path, files: dict[str, bytes], said: str) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    model = Seeing()

    record = run_(model)

    assert said in str(record.outcomes[0].error)
    assert record.outcomes[0].hint
    assert not model.requests


# --- models that see nothing


def test_a_blind_model_is_refused_before_anything_has_run(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())
    model = ScriptedProvider()
    with pytest.raises(
        UsageError, match="'b' reads the image in/a.png, and its model 'small' takes no images"
    ) as found:
        run_(model, "  - {id: first, run: touch ran}\n  - {id: b, prompt: look, reads: ['in/*']}\n")
    assert "vision: true" in str(found.value.hint)
    assert not Path("ran").exists()


def test_an_image_made_by_an_earlier_stage_is_refused_before_the_call(folder: Path) -> None:
    Path("x").write_bytes(png())
    model = ScriptedProvider()

    record = run_(model, "  - {id: first, run: cp x in/a.png}\n  - {id: b, prompt: look, reads: ['in/*']}\n")

    assert "'b' reads the image in/a.png, and its model 'small' takes no images" in str(record.outcomes[1].error)
    assert not model.requests


def test_every_rung_of_a_ladder_must_see(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())
    with llm_of(Seeing(), ScriptedProvider()) as llm, pytest.raises(UsageError, match="'large' takes no images"):
        run_pipeline(pipeline("  - {id: b, prompt: x, model: [cheap, expensive], reads: ['in/*']}\n"), llm=llm)


SETTINGS = """llm:
  models:
    blind: {{provider: openai, model: b, base_url: "{url}", vision: false}}
    seeing: {{provider: openai, model: gpt-5-mini, base_url: "{url}", vision: true, max_tokens: 10, context: 900}}
    unsure: {{provider: openai, model: u, base_url: "{url}"}}
  cheap_model: {cheap}
  expensive_model: blind
"""


def settings(url: str = "http://127.0.0.1:9/v1", cheap: str = "seeing") -> None:
    Path("settings.yaml").write_text(SETTINGS.format(url=url, cheap=cheap))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_plan_and_run_name_stage_file_and_a_model_that_can(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png())
    settings(cheap="blind")
    pipeline()

    assert run_command([command, "p.yaml"]) == 2

    said = capsys.readouterr().err
    assert "'a' reads the image in/a.png, and its model 'blind' takes no images" in said
    assert "model: seeing" in said


def test_plan_counts_images_and_says_what_is_not_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.png").write_bytes(png(640, 480))
    settings(cheap="[unsure, blind]")
    pipeline()

    assert run_command(["plan", "p.yaml", "--json"]) == 0

    (row,) = json.loads(capsys.readouterr().out)["stages"]
    assert row["first_input"] >= most_tokens((640, 480), ModelSettings(name="u", provider="openai", model="u"))
    assert "nobody knows whether 'unsure' takes images: set its `vision`" in row["notes"]
    assert "'blind' cannot stand in: it takes no images" in row["notes"]


def test_plan_warns_where_images_do_not_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.png").write_bytes(png(640, 480))
    settings()
    pipeline()
    assert run_command(["plan", "p.yaml"]) == 0
    assert "do not fit into the window of seeing" in capsys.readouterr().out


def test_rendered_prompts_have_a_line_for_each_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.png").write_bytes(png(64, 48, pad=83_000))
    settings()
    pipeline()
    assert run_command(["plan", "p.yaml", "--render"]) == 0
    assert "what is it?\n\nin/a.png\n[image in/a.png, image/png, 64x48, 83 kB]\n" in capsys.readouterr().out


# --- what is kept of it


def test_a_run_is_recorded_without_the_image_and_played_back_by_its_hash(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png(pad=300_000))
    pipeline()
    with ChatServer(answer("a cat")) as server:
        settings(server.base_url)
        assert run_command(["run", "p.yaml", "--json", "--record", "kept.jsonl"]) == 0
        assert len(server.requests) == 1
        assert len(server.requests[0].data) > 400_000
    run = json.loads(capsys.readouterr().out)["id"]

    database = sum(file.stat().st_size for file in Path(".flowcraft").glob("flowcraft.db*"))
    kept = json.loads(Path("kept.jsonl").read_text())["request"]["messages"][0]["content"][1]
    assert database < 300_000
    assert (kept["type"], kept["name"], kept["bytes"]) == ("image", "in/a.png", len(png(pad=300_000)))

    assert run_command(["show", run, "a"]) == 0
    assert "[image in/a.png, image/png, 4x3, 300 kB]" in capsys.readouterr().out
    assert run_command(["export"]) == 0
    assert kept["sha256"] in capsys.readouterr().out
    assert run_command(["run", "p.yaml", "--replay", "kept.jsonl"]) == 0
    (folder / "a.png").write_bytes(png(5, 5))
    assert run_command(["run", "p.yaml", "--replay", "kept.jsonl"]) == 1
    assert "sha256" in capsys.readouterr().out


def test_the_answer_is_used_again_until_the_image_changes(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())
    model = Seeing("one", "two")

    first = run_(model, fresh=())
    again = run_(model, fresh=())
    (folder / "a.png").write_bytes(png(5, 5))
    changed = run_(model, fresh=())

    assert [record.outcomes[0].output for record in (first, again, changed)] == ["one", "one", "two"]
    assert again.outcomes[0].cached_from


def test_an_answer_that_was_paid_for_and_not_used_belongs_to_its_image() -> None:
    model = ModelSettings(name="m", provider="openai", model="m")
    one, same, other = (
        call_key(model, [LLMMessage("user", [ImagePart(data=data)])], {}) for data in (png(), png(), png(5, 5))
    )
    assert one == same != other


# --- ceiling


def test_the_reserve_of_a_call_counts_its_images() -> None:
    model = ModelSettings(name="m", provider="openai", model="gpt-5", max_tokens=7)
    choice = Choice(model=model, tier=None, cause="argument", origin=Origin())
    messages = LLMMessage("user", "é"), LLMMessage("user", [TextPart("é"), ImagePart(data=png())])
    with LLMIntegration(settings_of(model)) as llm:
        text, shown = (worst_case(llm, choice, ChatRequest(messages=(one,)), {"tokens": 1}) for one in messages)
    assert shown["tokens"] - text["tokens"] == most_tokens((4, 3), model)


def test_a_request_that_was_refused_by_ourselves_cost_nothing() -> None:
    record = run_(ScriptedProvider(UsageError("'m' takes no images")), "  - {id: a, prompt: x}\n")
    assert record.outcomes[0].attempts[0].cost == 0


class Dearest(Seeing):
    """Counts each image as much as the model may, and each byte as a token."""

    def deltas(self, request: ChatRequest) -> Any:
        used = 0
        for part in (part for message in request.messages for part in message.parts):
            text = isinstance(part, TextPart)
            used += len(part.text.encode()) if isinstance(part, TextPart) else most_tokens(part.size, self.config)
            assert text or isinstance(part, ImagePart)
        yield Delta(content="x" * 50)
        yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=used, completion_tokens=50))


@pytest.mark.parametrize("name", ["claude-x", "gpt-5", "qwen3-vl-plus", "own"])
def test_no_run_with_images_costs_more_than_its_ceiling(folder: Path, name: str) -> None:
    (folder / "a.png").write_bytes(png(1000, 700))
    (folder / "b.gif").write_bytes(gif(20_000, 20_000))
    (folder / "c.jpg").write_bytes(b"\xff\xd8\xff")  # whose size nobody knows
    price = Prices(input=Decimal(3), output=Decimal(5))
    of = ModelSettings(name="small", provider="small", model=name, prices=price, max_tokens=50)
    model = Dearest()
    model.config = of
    with LLMIntegration(settings_of(of), providers={"small": model}) as llm:
        checked = load(pipeline("  - {id: a, prompt: x, reads: ['in/*'], check: [output == 'y'], attempts: 3}\n"))
        (found,) = Estimator(llm, Workspace("."), {}).estimates(checked, {})
        tokens = {"tokens": found.tokens, "usd": found.ceiling}
        record = run_pipeline(checked, llm=llm, durable=Durable(budget=tokens))
    assert record.outcomes[0].status == "failed"
    assert "3 answers were not accepted" in str(record.outcomes[0].error)
    assert record.totals.cost is not None
    assert found.ceiling is not None
    assert record.totals.cost <= found.ceiling


@pytest.mark.parametrize(("named", "said"), [("notes.txt", "and there is no such file"), ("docs", "write docs/**")])
def test_a_file_that_is_named_and_missing_ends_the_stage_before_a_call(folder: Path, named: str, said: str) -> None:
    (folder / "docs").mkdir(exist_ok=True)
    model = ScriptedProvider(otherwise="x")
    (folder / "p.yaml").write_text(f"flowcraft: 1\nstages:\n  - {{id: a, prompt: look, reads: [{named}, '*.none']}}\n")

    with llm_of(model) as llm:
        outcome = run_pipeline(folder / "p.yaml", llm=llm, workspace=folder).outcomes[0]

    assert said in f"{outcome.error} {outcome.hint}"
    assert model.requests == []
