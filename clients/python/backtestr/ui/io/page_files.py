"""The files of the built page, which `make ui` makes and a wheel carries."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from backtestr.ui.core.http_headers import CONTENT_TYPES

PAGE = Path(__file__).parents[1] / "page"


class PageFiles:
    """The files below a folder, by their paths in an address. Nothing else of the machine can be named."""

    def __init__(self, folder: Path = PAGE) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}

    def find(self, address: str) -> tuple[bytes, str] | None:
        """Return content and type of the file at an address such as `/assets/app.js`; None if there is none."""
        file = self._files.get(address)
        if file is None or address == "/":  # the page may have been built again, with other names
            self._look()
            file = self._files.get(address)
        if file is None:
            return None
        try:
            return file.read_bytes(), CONTENT_TYPES[file.suffix]
        except OSError:
            return None

    def _look(self) -> None:
        self._files = {
            f"/{PurePosixPath(file.relative_to(self._folder))}": file
            for file in self._folder.rglob("*")
            if file.suffix in CONTENT_TYPES and file.is_file()
        }
        if (index := self._files.pop("/index.html", None)) is not None:
            self._files["/"] = index
