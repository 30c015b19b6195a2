"""Paths below one folder."""

import json
import os
import stat
from pathlib import Path

import pytest

from flowcraft.core.errors import StageError, UsageError
from flowcraft.runner.files import Change, Transaction, take_back
from flowcraft.runner.workspace import MAX_READ_BYTES, Workspace


@pytest.fixture
def place(workspace: Path) -> Workspace:
    return Workspace(workspace)


LEAVING = ["..", "../x", "a/../../x", "/etc/passwd", "/", "", "a\0b", "a\nb", "x" * 256, "a/" + "é" * 128]


@pytest.mark.parametrize("path", LEAVING)
def test_a_path_that_leaves_the_workspace_is_refused(place: Workspace, path: str) -> None:
    for use in (place.target, place.read, place.folder, place.glob):
        with pytest.raises(UsageError):
            use(path)


def test_a_link_that_leads_out_is_refused(place: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (place.root / "file").symlink_to(tmp_path / "secret.txt")
    (place.root / "folder").symlink_to(tmp_path)

    for path in ("file", "folder/secret.txt", "folder/new.txt"):
        with pytest.raises(UsageError, match="leads out of the workspace"):
            place.read(path)
        with pytest.raises(UsageError, match="leads out of the workspace"):
            place.target(path)
    assert place.glob("**/*.txt") == []


@pytest.mark.parametrize(
    "path", [".git/hooks/x", "a/.GIT/hooks/x", ".Git\u200c/x", ".FlowCraft/x", "a/\x1b[31mx", "\u202etxt.exe", "a\rb"]
)
def test_nothing_is_written_for_git_nor_under_a_name_that_does_not_show(place: Workspace, path: str) -> None:
    with pytest.raises(UsageError):
        place.target(path)


def test_nothing_is_written_below_a_file(place: Workspace) -> None:
    (place.root / "a").write_text("text")

    with pytest.raises(UsageError, match="'a/b/c' cannot be written: a is a file"):
        place.target("a/b/c")


def test_a_loop_of_links_is_refused(place: Workspace) -> None:
    (place.root / "a").symlink_to("b")
    (place.root / "b").symlink_to("a")

    with pytest.raises(UsageError):
        place.read("a")


def test_a_link_inside_the_workspace_is_followed(place: Workspace) -> None:
    (place.root / "real").mkdir()
    (place.root / "real" / "a.txt").write_text("text")
    (place.root / "link").symlink_to("real")

    assert place.read("link/a.txt") == "text"
    place.write(place.target("link/b.txt"), "new")
    assert (place.root / "real" / "b.txt").read_text() == "new"


def test_writing_makes_the_folders_and_gives_the_path_back(place: Workspace) -> None:
    assert place.write(place.target("docs/deep/a.md"), "text\n") == "docs/deep/a.md"
    assert (place.root / "docs" / "deep" / "a.md").read_bytes() == b"text\n"


def test_writing_replaces_a_file_and_keeps_its_permissions(place: Workspace) -> None:
    file = place.root / "tool.sh"
    file.write_text("old")
    file.chmod(0o750)

    place.write(place.target("tool.sh"), "new")

    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o750
    assert [path.name for path in place.root.iterdir()] == ["tool.sh"]


def test_a_new_file_has_the_permissions_of_the_umask(place: Workspace) -> None:
    before = os.umask(0o027)
    try:
        place.write(place.target("a"), "x")
    finally:
        os.umask(before)

    assert stat.S_IMODE((place.root / "a").stat().st_mode) == 0o640


def test_a_folder_that_became_a_link_after_the_check_is_not_followed(place: Workspace, tmp_path: Path) -> None:
    target = place.target("docs/a.md")
    (tmp_path / "outside").mkdir()
    (place.root / "docs").symlink_to(tmp_path / "outside")

    with pytest.raises(StageError, match="cannot be written"):
        place.write(target, "text")

    assert list((tmp_path / "outside").iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(place: Workspace) -> None:
    (place.root / "a").write_text("old")
    target = place.target("a")
    (place.root / "a").unlink()
    (place.root / "a").mkdir()

    with pytest.raises(StageError):
        place.write(target, "new")

    assert [path.name for path in place.root.iterdir()] == ["a"]


@pytest.mark.parametrize("path", [".", "folder"])
def test_a_folder_is_no_file_to_write(place: Workspace, path: str) -> None:
    (place.root / "folder").mkdir()

    with pytest.raises(UsageError, match="is a folder"):
        place.target(path)


def test_reading_a_pipe_without_a_writer_does_not_hang(place: Workspace) -> None:
    os.mkfifo(place.root / "pipe")

    with pytest.raises(UsageError, match="not a file"):
        place.read("pipe")


@pytest.mark.parametrize(("path", "reason"), [("folder", "is a folder"), (".", "is a folder"), ("pipe", "not a file")])
def test_what_is_no_file_is_refused_and_not_held_open(place: Workspace, path: str, reason: str) -> None:
    (place.root / "folder").mkdir()
    os.mkfifo(place.root / "pipe")
    before = os.listdir("/dev/fd")

    for _ in range(5):
        with pytest.raises(UsageError, match=reason):
            place.read(path)

    assert os.listdir("/dev/fd") == before


@pytest.mark.parametrize(("data", "reason"), [(b"\xff\xfe", "UTF-8"), (b"x" * (MAX_READ_BYTES + 1), "larger than")])
def test_what_is_no_text_for_a_model_is_refused(place: Workspace, data: bytes, reason: str) -> None:
    (place.root / "file").write_bytes(data)

    with pytest.raises(UsageError, match=reason):
        place.read("file")


def test_reading_what_is_missing_names_the_path(place: Workspace) -> None:
    with pytest.raises(UsageError, match=r"'no\.txt' cannot be read"):
        place.read("no.txt")


def test_glob_gives_files_sorted_and_leaves_hidden_ones_out(place: Workspace) -> None:
    for name in ("src/b.py", "src/a.py", "src/deep/c.py", "src/.hidden.py", ".git/x.py", "top.py"):
        (place.root / name).parent.mkdir(parents=True, exist_ok=True)
        (place.root / name).write_text("")

    assert place.glob("**/*.py") == ["src/a.py", "src/b.py", "src/deep/c.py", "top.py"]
    assert place.glob("src/**") == ["src/a.py", "src/b.py", "src/deep/c.py"]
    assert place.glob("src/.*.py") == ["src/.hidden.py"]


def test_a_workspace_that_is_no_folder_is_refused(workspace: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        Workspace(workspace / "missing")


def test_what_a_killed_transaction_was_writing_is_removed_with_it(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_text("old")
    undo = tmp_path / ".flowcraft" / "undo"
    Transaction(Workspace(tmp_path), undo / "stage").apply([Change("src/a.txt", "new")])
    tag = json.loads((undo / "stage" / "manifest.json").read_text())["tag"]
    (tmp_path / "src" / f".flowcraft-{tag}-1.tmp").write_text("hal")
    (tmp_path / "src" / ".flowcraft-another-1.tmp").write_text("hal")

    take_back(undo, (), Workspace(tmp_path))

    assert sorted(place.name for place in (tmp_path / "src").iterdir()) == [".flowcraft-another-1.tmp", "a.txt"]
    assert (tmp_path / "src" / "a.txt").read_text() == "old"


@pytest.mark.parametrize("pattern", ["a**b", "./", "src/[", "[z-a]"])
def test_what_is_no_glob_is_refused(pattern: str, workspace: Path) -> None:
    with pytest.raises(UsageError, match=r"names no file|beside|not closed|before it begins"):
        Workspace(workspace).glob(pattern)
