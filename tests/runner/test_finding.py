"""Which files a glob finds, and how much is looked at for it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.errors import UsageError
from flowcraft.core.globs import matches
from flowcraft.runner.finding import fitting
from flowcraft.runner.workspace import Workspace

FILES = ["a", "b.py", "x/a", "x/b.py", "x/y/a", "x/y/b.py", "x/y/x/a", ".h/a", "x/.h/b.py", "x/.b.py", "[x]/a b"]
PARTS = st.sampled_from(
    ["a", "b.py", "x", "y", "**", "*", "*.py", "?", "[xy]", "[!x]", "[[]x]", ".", ".h", ".*", "a b"]
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree").resolve()
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


def deep(folder: Path, levels: int) -> Path:
    root = folder.resolve() / "root"
    place = root.joinpath(*["d"] * levels)
    place.mkdir(parents=True)
    (place / "a.py").write_text("")
    return root


@given(st.lists(PARTS, min_size=1, max_size=5).map("/".join).filter(lambda glob: glob.strip("./") != ""))
def test_it_finds_what_fits_and_nothing_else(tree: Path, glob: str) -> None:
    hidden = any(part.startswith(".") for part in glob.split("/") if part != ".")
    seen = [path for path in FILES if hidden or not any(part.startswith(".") for part in path.split("/"))]

    assert fitting(tree, glob) == sorted(path for path in seen if matches(glob, path))


@pytest.mark.parametrize("glob", ["**/" * 8 + "*.py", "**/" * 60 + "*.py", "**/./" * 9 + "**/*.py", "**"])
def test_stars_that_follow_each_other_look_at_each_name_once(tmp_path: Path, glob: str) -> None:
    root = deep(tmp_path, 30)

    assert fitting(root, glob, most_steps=3 * 31) == ["d/" * 30 + "a.py"]


def test_stars_with_names_between_them_look_at_each_name_once_for_each_part(tmp_path: Path) -> None:
    assert fitting(deep(tmp_path, 30), "**/d/" * 15 + "*.py", most_steps=31 * 31) == ["d/" * 30 + "a.py"]


def test_named_folders_are_not_searched(tmp_path: Path) -> None:
    root = deep(tmp_path, 2)
    for number in range(100):
        (root / f"{number}.py").write_text("")

    assert fitting(root, "d/d/*.py", most_steps=3) == ["d/d/a.py"]


def test_too_much_to_look_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'\*\*/a\.py' goes through too many files and folders"):
        fitting(deep(tmp_path, 30), "**/a.py", most_steps=40)
    with pytest.raises(UsageError, match="longer than 4096 characters"):
        fitting(tmp_path, "*/" * 3000)


def test_it_is_told_how_much_was_looked_at(tmp_path: Path) -> None:
    spent: list[int] = []

    Workspace(deep(tmp_path, 30)).glob("**/*.py", spent.append)

    assert (len(spent), sum(spent)) == (31, 2 * 31)


def test_stars_do_not_go_through_links_and_names_do(tmp_path: Path) -> None:
    root = deep(tmp_path, 2)
    (root / "link").symlink_to("d")
    (root / "d" / "loop").symlink_to("..")
    (root / "file").symlink_to("d/d/a.py")
    (tmp_path / "out.py").write_text("secret")
    (root / "out.py").symlink_to("../out.py")
    (root / "out").symlink_to("..")

    assert fitting(root, "**/*.py") == ["d/d/a.py"]
    assert fitting(root, "link/*/*.py") == ["link/d/a.py"]
    assert fitting(root, "link/**/*.py") == ["link/d/a.py"]
    assert fitting(root, "*/loop/d/d/*") == ["d/loop/d/d/a.py", "link/loop/d/d/a.py"]
    assert fitting(root, "f*") == ["file"]
    assert fitting(root, "out.py") == fitting(root, "out/*") == []


def test_what_is_no_file_or_cannot_be_looked_into_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")

    assert fitting(tmp_path.resolve(), "*") == ["file"]
    assert fitting(tmp_path.resolve(), "file/*") == fitting(tmp_path.resolve(), "gone/*") == []
    assert fitting(tmp_path.resolve(), "pipe") == []


def test_names_that_are_no_text_do_not_disturb(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.py", "wb"):
        pass

    assert [os.fsencode(path) for path in Workspace(tmp_path).glob("*.py")] == [b"\xff.py"]
