"""The files that ship with FlowCraft, installed or not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import flowcraft
from flowcraft.core import resources
from flowcraft.core.errors import UsageError


def test_a_schema_is_read_as_text_and_as_data() -> None:
    assert json.loads(resources.schema_text("settings")) == resources.schema("settings")
    assert resources.schema("settings") is resources.schema("settings")


def test_ready_pipelines_are_listed_and_readable() -> None:
    names = resources.pipeline_names()

    assert names == tuple(sorted(names))
    assert "code_review" in names
    for name in names:
        assert "flowcraft: 1" in resources.pipeline_text(name)


def test_what_init_writes_is_there() -> None:
    assert "llm:" in resources.start_text("settings.yaml")
    assert "stages:" in resources.start_text("hello.yaml")


@pytest.mark.parametrize("name", ["setings", "", "..", "../settings", "/etc/passwd", "__init__"])
def test_other_names_are_refused_with_the_nearest(name: str) -> None:
    for read in (resources.schema_text, resources.pipeline_text, resources.start_text):
        with pytest.raises(UsageError, match="ships no"):
            read(name)


def test_a_bare_checkout_works_from_any_folder(tmp_path: Path) -> None:
    root = Path(flowcraft.__file__).parents[1]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from flowcraft.core.resources import pipeline_names, schema\n"
        "assert schema('settings')['title'] and pipeline_names()"
    )

    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, timeout=60)
