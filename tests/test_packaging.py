"""The distribution as users install it: wheel, sdist and editable, each in a fresh environment."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = """
from flowcraft.core.resources import pipeline_text, schema_text, start_text
for name in ("pipeline", "settings", "report"):
    assert '"$schema"' in schema_text(name), name
for name in ("quickstart", "code_change", "code_review"):
    assert "flowcraft: 1" in pipeline_text(name), name
assert "flowcraft: 1" in start_text("hello.yaml")
print("shipped")
"""

pytestmark = pytest.mark.packaging


def sources(folder: Path) -> Path:
    """The tracked files alone, as a release is made from."""
    copy = folder / "source tree"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, names):
        source, target = ROOT / name.decode(), copy / name.decode()
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return copy


def build(tree: Path, kind: str) -> Path:
    out = tree.parent / kind
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(out), str(tree)],
        check=True,
        capture_output=True,
    )
    [made] = out.iterdir()
    return made


def run_installed(folder: Path, *install: str) -> str:
    """Install without dependencies into a fresh environment that sees ours, and ask for what ships."""
    # The environment's own packages come first; requests and the like are those of the test environment.
    home = folder / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-build-isolation"]
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(ours + "\n")
    subprocess.run([*pip, "--no-index", *install], check=True, capture_output=True)
    done = subprocess.run(
        [str(python), "-P" if sys.version_info >= (3, 11) else "-s", "-c", SHIPPED],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return done.stdout.strip()


def test_the_wheel_carries_schemas_and_pipelines(tmp_path: Path) -> None:
    wheel = build(sources(tmp_path), "wheel")

    names = zipfile.ZipFile(wheel).namelist()

    assert "flowcraft/schemas/pipeline.schema.json" in names
    assert "flowcraft/pipelines/quickstart.yaml" in names
    assert "flowcraft/pipelines/start/settings.yaml" in names
    assert "flowcraft/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "schemas/", "pipelines/"))]
    assert run_installed(tmp_path, str(wheel)) == "shipped"


def test_the_source_distribution_installs(tmp_path: Path) -> None:
    sdist = build(sources(tmp_path), "sdist")

    assert run_installed(tmp_path, str(sdist)) == "shipped"


def test_an_editable_install_finds_them_too(tmp_path: Path) -> None:
    assert run_installed(tmp_path, "--editable", str(sources(tmp_path))) == "shipped"
