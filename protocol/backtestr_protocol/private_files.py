"""This module decides whose files are trusted, and creates files and directories that no other user can reach.

A file is trusted if it belongs to this user or to root, and nobody else may write to it. A directory is trusted if that
holds for it and for every directory and link on the way to it: a user who may write to one of those can exchange
everything below. In a directory with the sticky bit, such as /tmp, nobody can exchange what belongs to others.

A group that has one user only, as many systems make one for each user, counts as that user: with the usual umask of
such systems, 0002, everything is open to that group. docs/decisions/0023 has the reasons.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

from .errors import InvalidConfiguration
from .system.open_flags import WITHOUT_WAITING

OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

# Links on the way to a directory; Linux follows no more either.
_MAX_LINKS = 40
# Without users and modes there is nothing to check: Windows protects a user's directories by access lists of their own.
HAS_OWNERS = hasattr(os, "getuid")


def private_directory(directory: Path, variable: str) -> None:
    """Create a directory for this user only, or make an existing one of this user private, with mode 0700.

    `variable` is the environment variable that names it. Raises `InvalidConfiguration` for a directory that cannot be
    created, belongs to another user, or could have been changed by one; the message says what to do.
    """
    try:
        make_private(directory)
        if not directory.is_dir():  # a device, for instance: nobody must change its mode
            raise InvalidConfiguration(f"{directory} is no directory; name one in {variable}")
        check_directory(directory, variable)
        if not HAS_OWNERS:
            return
        found = directory.stat()
        if not is_of_this_user(found):
            raise _of_another_user(directory, found, variable)
        if found.st_mode & OTHERS:
            directory.chmod(0o700)
    except OSError as error:
        raise InvalidConfiguration(
            f"the directory {directory} cannot be used: {error.strerror}; name another in {variable}"
        ) from error


def make_private(directory: Path) -> None:
    """Create a directory and its missing parents with mode 0700, whatever the umask is. Raises `OSError`."""
    missing = []
    at = directory
    while not at.exists():
        missing.append(at)
        at = at.parent
    for one in reversed(missing):
        try:
            one.mkdir(0o700)
        except FileExistsError:
            if not one.is_dir():
                raise
            continue  # another process made it meanwhile
        if one.stat().st_mode & 0o700 != 0o700:  # the umask may even take bits from its owner
            one.chmod(0o700)


def private_opener(path: str, flags: int) -> int:
    """Open a file so that it is created with mode 0600 at most; an `opener` for `open`."""
    return os.open(path, flags, 0o600)


def check_directory(directory: Path, variable: str) -> None:
    """Raise `InvalidConfiguration` for a directory in which a user other than this one and root can change anything.

    `variable` is the environment variable that names it. Raises `OSError` for one that does not exist.
    """
    if not HAS_OWNERS:
        return
    way = list(_way_to(directory.absolute()))
    for step in way:
        found = step.lstat()
        if found.st_uid not in _trusted_users():
            raise _of_another_user(step, found, variable)
        if stat.S_ISLNK(found.st_mode) or not _others_may_write(found):
            continue
        mode = stat.S_IMODE(found.st_mode)
        if step == way[-1]:
            raise InvalidConfiguration(
                f"others may write to {step} (mode {mode:o}): look through what is in it, then run: "
                f"chmod -R go-w '{step}'; or name a directory of your own in {variable}"
            )
        if not found.st_mode & stat.S_ISVTX:
            raise InvalidConfiguration(
                f"others may write to {step} (mode {mode:o}) and so exchange {directory}; run: chmod go-w '{step}', "
                f"or name a directory elsewhere in {variable}"
            )


def read_trusted(file: Path) -> bytes:
    """Return the content of a file that nobody but this user and root may change.

    Raises `InvalidConfiguration` for one that is not trusted, or is no regular file, and `OSError` for one that cannot
    be read.
    """
    with open_regular(file) as opened:
        check_file(file, os.fstat(opened.fileno()))
        return opened.read()


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading: its owner and mode can be checked then, and it cannot be exchanged meanwhile.

    Raises `InvalidConfiguration` for a directory, a FIFO or a device, without waiting for it, and `OSError`.
    """
    descriptor = os.open(file, os.O_RDONLY | WITHOUT_WAITING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidConfiguration(f"{file} is no regular file")
    return os.fdopen(descriptor, "rb")


def is_exhausted(error: OSError) -> bool:
    """Return True if this process or the machine has no file descriptor left, which says nothing about the file."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def check_file(file: Path, found: os.stat_result) -> None:
    """Raise `InvalidConfiguration` for a file that a user other than this one and root may have written."""
    if not HAS_OWNERS:
        return
    if found.st_uid not in _trusted_users():
        raise InvalidConfiguration(
            f"{file} belongs to another user (id {found.st_uid}) and is not used; remove it, or copy it to own it"
        )
    if _others_may_write(found):
        raise InvalidConfiguration(
            f"others may write to {file} (mode {stat.S_IMODE(found.st_mode):o}), so it is not used; look through it, "
            f"then run: chmod go-w '{file}'"
        )


def check_secret(file: Path, found: os.stat_result, forbidden: int, chmod: str) -> None:
    """Raise `InvalidConfiguration` for a secret of another user, and for a mode with any of the `forbidden` bits."""
    if not HAS_OWNERS:
        return
    if found.st_uid not in _trusted_users():
        raise InvalidConfiguration(f"{file} belongs to another user (id {found.st_uid}); keys must be your own")
    if found.st_mode & forbidden:
        mode = stat.S_IMODE(found.st_mode)
        raise InvalidConfiguration(f"{file} is open to others (mode {mode:o}); run: chmod {chmod} '{file}'")


def is_trusted(found: os.stat_result) -> bool:
    """Return True for a file or directory to which nobody but this user and root may write."""
    return not HAS_OWNERS or (found.st_uid in _trusted_users() and not _others_may_write(found))


def is_of_this_user(found: os.stat_result) -> bool:
    """Return True for a file or directory that belongs to this user, also where files have no owners."""
    return not HAS_OWNERS or found.st_uid == os.getuid()


def _way_to(directory: Path) -> Iterator[Path]:
    """Yield every directory and link that is passed on the way to a directory, and the directory itself last."""
    at, left, links = Path(directory.anchor), list(reversed(directory.parts[1:])), 0
    yield at
    while left:
        name = left.pop()
        if name == "..":
            at = at.parent
            yield at
            continue
        step = at / name
        yield step
        if not step.is_symlink() or links == _MAX_LINKS:
            at = step
            continue
        links += 1
        target = step.readlink()
        if target.is_absolute():
            at = Path(target.anchor)
            left += reversed(target.parts[1:])
        else:
            left += reversed(target.parts)


def _of_another_user(path: Path, found: os.stat_result, variable: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{path} belongs to another user (id {found.st_uid}); name a directory of your own in {variable}"
    )


def _trusted_users() -> set[int]:
    """Return this user and root. In a container root's files may have another id: that of the owner of /."""
    return {os.getuid(), 0, _owner_of_root()}


@cache
def _owner_of_root() -> int:
    return Path("/").stat().st_uid


def _others_may_write(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_group_of_one(found.st_uid, found.st_gid)


@cache
def _is_group_of_one(user: int, group: int) -> bool:
    """Return True for root's group, and for a group that has a user's name and no other user."""
    import grp  # only systems with owners have these
    import pwd

    if group == 0:
        return True
    try:
        owner, named = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    members = {*named.gr_mem, *(one.pw_name for one in pwd.getpwall() if one.pw_gid == group)}
    return named.gr_name == owner.pw_name and members <= {owner.pw_name}
