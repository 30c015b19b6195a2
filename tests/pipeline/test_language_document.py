"""docs/language.md: what it says of keys, names and codes is what the schema and the loader have."""

import re
from pathlib import Path

import pytest
from language_tables import DOCUMENT, filled, tables

import flowcraft
from flowcraft.core import document
from flowcraft.core.resources import schema_text

TEXT = DOCUMENT.read_text(encoding="utf-8")
PACKAGE = Path(flowcraft.__file__).parent
ERRORS = Path(__file__).parent / "errors"
AT_RUN_TIME = {"FC300", "FC302", "FC303", "FC304"}
OF_ANY_FILE = {"FC001", "FC002", "FC005", "FC006", "FC007", "FC008", "FC009"}


@pytest.mark.parametrize("name", tables())
def test_the_tables_say_what_the_schema_says(name: str) -> None:
    assert "\n".join(tables()[name]) in TEXT, "run: python tests/language_tables.py"


def test_writing_the_tables_again_changes_nothing() -> None:
    assert filled(TEXT) == TEXT


def test_every_code_is_explained() -> None:
    told = {code for file in ERRORS.glob("*.txt") for code in re.findall(r"\[(FC\d+)\]", file.read_text())}

    assert explained() == told | AT_RUN_TIME | OF_ANY_FILE


def explained() -> set[str]:
    return set(re.findall(r"^\| `(FC\d+)` \|", TEXT, re.MULTILINE))


def test_every_code_that_the_program_can_say_of_a_pipeline_is_explained() -> None:
    folders = (*PACKAGE.glob("pipeline/**/*.py"), *PACKAGE.glob("runner/**/*.py"), *PACKAGE.glob("core/reading/*.py"))
    folders = (*folders, *(PACKAGE / "core" / f"{name}.py" for name in ("document", "mistakes", "schema")))
    written = {code for file in folders for code in re.findall(r"\bFC\d{3}\b", file.read_text(encoding="utf-8"))}
    written |= set(re.findall(r'"(FC\d{3})"', schema_text("pipeline")))

    assert written == explained()


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL), ids=lambda text: text[:20])
def test_every_block_of_yaml_can_be_read(block: str) -> None:
    assert document.parse(block, "language.md").data
