"""What holds for the package as a whole: its public names, its weight at start-up, its promises."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flowcraft

ROOT = Path(flowcraft.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = ("requests", "urllib3", "yaml", "jsonschema", "jinja2", "sqlite3", "rich", "asyncio")


def loaded_after(code: str) -> set[str]:
    """The modules in memory after running `code` in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_public_names_are_these() -> None:
    assert set(flowcraft.__all__) == {
        "BaseLLMProvider",
        "FlowcraftError",
        "ImagePart",
        "LLMIntegration",
        "LLMMessage",
        "LLMProviderFactory",
        "LLMResponse",
        "Pipeline",
        "SettingsManager",
        "TextPart",
        "Usage",
        "__version__",
        "run_pipeline",
    }


@pytest.mark.parametrize("name", flowcraft.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(flowcraft, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = flowcraft.nothing


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import flowcraft").isdisjoint(HEAVY)


def test_help_loads_nothing_heavy() -> None:
    code = "from flowcraft.cli.main import run_command\nassert run_command(['--help']) == 0"

    assert loaded_after(code).isdisjoint(HEAVY)


def test_validating_opens_no_door_to_the_network() -> None:
    code = "from flowcraft.cli.main import run_command\nrun_command(['validate', 'missing.yaml'])"

    assert loaded_after(code).isdisjoint({"requests", "urllib3"})


def test_asyncio_is_never_loaded() -> None:
    names = [".".join(("flowcraft", *path.relative_to(ROOT).with_suffix("").parts)) for path in MODULES]
    wanted = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = "\n".join(f"import {name}" for name in wanted)

    assert "asyncio" not in loaded_after(code)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_small_and_explained(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.count("\n") <= 400
    if text:
        assert ast.get_docstring(ast.parse(text)), "a module begins with what it does"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]

    # The command functions of the CLI carry their options as parameters and may be longer in lines.
    assert [f.name for f in functions if (f.end_lineno or 0) - f.body[0].lineno > 50] == []
