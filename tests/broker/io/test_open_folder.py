"""A folder is emptied by its descriptor or by its path with the same outcome, and no link is followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtestr_broker.io.open_folder import FolderEntry, open_folder

both = pytest.mark.parametrize("by_descriptor", [True, False], ids=["descriptor", "path"])


@both
def test_entries_are_told_apart_and_a_link_to_a_folder_is_no_folder(tmp_path: Path, by_descriptor: bool) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with open_folder(tmp_path, by_descriptor=by_descriptor) as opened:
        found = {one.name: one for one in opened.entries()}
        assert sorted(opened.names()) == ["file", "folder", "link"]
        assert found["file"] == FolderEntry("file", False, 5)
        assert found["folder"].is_folder
        assert not found["link"].is_folder
        assert found == {name: opened.entry(name) for name in opened.names()}
        with pytest.raises(OSError, match="link"):
            opened.inner("link")
        with pytest.raises(FileNotFoundError):
            opened.entry("absent")


@both
def test_what_is_removed_and_renamed_is_in_that_folder(tmp_path: Path, by_descriptor: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "link").symlink_to(elsewhere)
    (folder / "inner" / "file").write_text("")
    with open_folder(folder, by_descriptor=by_descriptor) as opened:
        inner = opened.inner("inner")
        inner.rename("file", opened, "moved")
        inner.close()
        opened.rmdir("inner")
        opened.unlink("link")
        opened.unlink("moved")
        opened.sync()
        assert opened.names() == []
    assert (elsewhere / "kept").exists()


@both
def test_a_folder_that_is_not_there_is_said(tmp_path: Path, by_descriptor: bool) -> None:
    with (
        pytest.raises(FileNotFoundError, match="absent"),
        open_folder(tmp_path / "absent", by_descriptor=by_descriptor),
    ):
        pass
