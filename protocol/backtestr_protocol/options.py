"""This module reads options from TOML: the shipped defaults, overlaid with the user's file, as one typed struct.

Defaults are in `config/*.toml` and nowhere else, so the structs of options have none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from .errors import InvalidConfiguration, did_you_mean
from .private_files import check_directory, read_trusted

T = TypeVar("T")

Table = dict[str, Any]


def default_text(file_name: str) -> str:
    """Return the text of the shipped `broker.toml` or `engine.toml`, from an installed wheel or the source tree."""
    packaged = resources.files(__package__).joinpath("defaults", file_name)
    if packaged.is_file():
        return packaged.read_text("utf-8")
    return (Path(__file__).parents[2] / "config" / file_name).read_text("utf-8")


def load_options(
    file_name: str, struct: type[T], own_dir: Path | None, removed: Mapping[str, str] = MappingProxyType({})
) -> T:
    """Return the options of `file_name` as `struct`: defaults, overlaid with `own_dir / file_name` if that exists.

    `removed` has sections of earlier versions, each with a sentence that says what to write instead. Raises
    `InvalidConfiguration`, naming file and option, for an unknown section or option (with a similar name), a value of
    the wrong type or range, an `own_dir` that is no directory, or a file that is unreadable or not TOML, and for a
    directory or file that other users could have written.
    """
    options = tomllib.loads(default_text(file_name))
    where = file_name
    if own_dir is not None:
        if not own_dir.is_dir():
            raise InvalidConfiguration(f"BACKTESTR_CONFIG_DIR is {own_dir}, which is not a directory")
        own_file = own_dir / file_name
        if own_file.exists():
            where = str(own_file)
            check_directory(own_dir, "BACKTESTR_CONFIG_DIR")
            own = _read(own_file)
            for name in removed.keys() & own.keys():
                raise InvalidConfiguration(f"{where}: [{name}] is no section any more: {removed[name]}", option=name)
            options = overlaid(options, own, where)
    try:
        return msgspec.convert(options, struct)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"{where}: {error}") from error


def overlaid(defaults: Mapping[str, Any], own: Mapping[str, Any], where: str) -> Table:
    """Return `defaults` with the values of `own`.

    Raises `InvalidConfiguration` for an option that has no default: it does not exist.
    """
    merged = dict(defaults)
    for name, value in own.items():
        if name not in defaults:
            listing = ", ".join(sorted(defaults))
            raise InvalidConfiguration(
                f"{where}: unknown option {name!r}{did_you_mean(name, defaults)} ({listing})", option=name
            )
        default = defaults[name]
        if isinstance(default, Mapping):
            if not isinstance(value, Mapping):
                raise InvalidConfiguration(f"{where}: {name} is a section, [{name}], not a value", option=name)
            merged[name] = overlaid(default, value, f"{where} [{name}]")
        else:
            merged[name] = value
    return merged


def _read(file: Path) -> Table:
    try:
        return tomllib.loads(read_trusted(file).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{file}: not TOML: {error}") from error
    except OSError as error:
        raise InvalidConfiguration(f"{file}: cannot be read: {error.strerror}") from error
