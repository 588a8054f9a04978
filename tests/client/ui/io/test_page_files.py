"""The files of the built page; `test_web_app` asks for them over HTTP."""

from __future__ import annotations

from pathlib import Path

from backtestr.ui.io.page_files import PAGE, PageFiles


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert PageFiles(tmp_path / "none").find("/") is None


def test_a_file_that_has_gone_meanwhile_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x")
    (tmp_path / "a.js").write_text("y")
    files = PageFiles(tmp_path)
    assert files.find("/a.js") == (b"y", "text/javascript; charset=utf-8")
    (tmp_path / "a.js").unlink()
    assert files.find("/a.js") is None
    assert files.find("/") == (b"x", "text/html; charset=utf-8")


def test_the_page_lies_beside_the_code_so_that_a_wheel_has_it() -> None:
    assert PAGE.parent.name == "ui"
    assert (PAGE.parent / "io").is_dir()
