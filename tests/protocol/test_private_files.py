"""Files and directories that others may have written are refused with the command that helps; new ones are private."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtestr_protocol import private_files
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.private_files import (
    check_directory,
    is_exhausted,
    is_trusted,
    make_private,
    private_directory,
    private_opener,
    read_trusted,
)
from support.harness import short_directory

VARIABLE = "BACKTESTR_DATA_DIR"
UMASKS = (0o000, 0o002, 0o022, 0o077, 0o777)


@pytest.fixture
def home() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
def _several_in_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every group one with other users, root's too."""
    monkeypatch.setattr(private_files, "_is_group_of_one", lambda _user, _group: False)


@pytest.fixture
def _another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything belong to a user who is neither this one nor root."""
    monkeypatch.setattr(private_files, "_trusted_users", lambda: {-1})


@pytest.fixture(params=UMASKS, ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_a_new_directory_and_its_parents_are_private_whatever_the_umask_is(home: Path) -> None:
    private_directory(home / "share" / "backtestr", VARIABLE)
    assert [mode(home / "share"), mode(home / "share" / "backtestr")] == [0o700, 0o700]
    make_private(home / "share" / "backtestr")


@pytest.mark.usefixtures("_umask")
def test_a_new_file_is_private_whatever_the_umask_is(home: Path) -> None:
    with open(home / "file", "xb", opener=private_opener):
        pass
    assert mode(home / "file") & 0o177 == 0


@pytest.mark.parametrize("old", [0o755, 0o750, 0o711, 0o775])
def test_a_directory_of_this_user_that_others_can_read_is_made_private(
    home: Path, monkeypatch: pytest.MonkeyPatch, old: int
) -> None:
    """With umask 0022 earlier versions made 0755, and with 0002, where each user has a group of his own, 0775."""
    monkeypatch.setattr(private_files, "_is_group_of_one", lambda _user, _group: True)
    (home / "data").mkdir()
    (home / "data").chmod(old)
    private_directory(home / "data", VARIABLE)
    assert mode(home / "data") == 0o700


@pytest.mark.usefixtures("_several_in_each_group")
@pytest.mark.parametrize("open_to", [0o777, 0o757, 0o770, 0o1777])
def test_a_directory_to_which_others_may_write_is_refused_and_stays_as_it_is(home: Path, open_to: int) -> None:
    data = home / "data"
    data.mkdir()
    data.chmod(open_to)
    with pytest.raises(InvalidConfiguration, match=f"look through what is in it, then run: chmod -R go-w '{data}'"):
        private_directory(data, VARIABLE)
    assert mode(data) == open_to


@pytest.mark.usefixtures("_several_in_each_group")
def test_a_directory_that_others_can_exchange_is_refused(home: Path) -> None:
    shared = home / "shared"
    (shared / "of" / "data").mkdir(parents=True, mode=0o700)
    shared.chmod(0o777)
    with pytest.raises(
        InvalidConfiguration, match=f"chmod go-w '{shared}', or name a directory elsewhere in {VARIABLE}"
    ):
        private_directory(shared / "of" / "data", VARIABLE)
    shared.chmod(0o1777)
    private_directory(shared / "of" / "data", VARIABLE)


@pytest.mark.usefixtures("_several_in_each_group")
@pytest.mark.parametrize(
    "target", ["{home}/shared/data", "../{name}/shared/data", "shared/./data", "shared/data/../data"]
)
def test_the_way_through_a_link_is_checked_too(home: Path, target: str) -> None:
    (home / "shared" / "data").mkdir(parents=True)
    link = home / "link"
    link.symlink_to(target.format(home=home, name=home.name))
    check_directory(link, VARIABLE)
    (home / "shared").chmod(0o777)
    with pytest.raises(InvalidConfiguration, match=f"exchange {link}"):
        check_directory(link, VARIABLE)


def test_a_link_of_another_user_is_refused_wherever_it_leads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "data").mkdir()
    (home / "link").symlink_to("data")
    lstat = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[stat.ST_UID] += path.name == "link"
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    check_directory(home / "data", VARIABLE)
    with pytest.raises(InvalidConfiguration, match=f"{home}/link belongs to another user"):
        check_directory(home / "link", VARIABLE)


def test_links_in_a_circle_are_an_error_of_one_kind(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    with pytest.raises(InvalidConfiguration, match=f"cannot be used: .*; name another in {VARIABLE}"):
        private_directory(home / "a", VARIABLE)


@pytest.mark.usefixtures("_another_user")
def test_a_directory_of_another_user_is_refused(home: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=f"belongs to another user.*your own in {VARIABLE}"):
        private_directory(home / "data", VARIABLE)


def test_a_data_directory_of_root_is_refused_for_anybody_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = private_files._trusted_users() | {home.stat().st_uid}
    monkeypatch.setattr(private_files, "_trusted_users", lambda: trusted)
    monkeypatch.setattr(os, "getuid", lambda: -1)
    check_directory(home, VARIABLE)
    with pytest.raises(InvalidConfiguration, match="belongs to another user"):
        private_directory(home, VARIABLE)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_nobody_is_told_to_change_the_mode_of_a_device(device: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"{device} is no directory; name one in BACKTESTR_DATA_DIR"):
        private_directory(Path(device), "BACKTESTR_DATA_DIR")


def test_a_file_in_the_place_of_a_directory_is_an_error_of_one_kind(home: Path) -> None:
    (home / "data").write_text("")
    for path in (home / "data" / "below", home / "data" / "further" / "below"):
        with pytest.raises(InvalidConfiguration, match="cannot be used"):
            private_directory(path, VARIABLE)


# --- files ---


def test_a_file_of_this_user_is_read(home: Path) -> None:
    file = home / "file"
    file.write_bytes(b"content")
    for usual in (0o600, 0o644, 0o400):
        file.chmod(usual)
        assert read_trusted(file) == b"content"


@pytest.mark.usefixtures("_several_in_each_group")
@pytest.mark.parametrize("open_to", [0o666, 0o664, 0o602])
def test_a_file_that_others_may_write_is_refused_with_the_command_that_helps(home: Path, open_to: int) -> None:
    file = home / "file"
    file.write_bytes(b"content")
    file.chmod(open_to)
    assert not is_trusted(file.lstat())
    with pytest.raises(InvalidConfiguration, match=f"chmod go-w '{file}'"):
        read_trusted(file)


@pytest.mark.usefixtures("_another_user")
def test_a_file_of_another_user_is_refused(home: Path) -> None:
    (home / "file").write_bytes(b"content")
    with pytest.raises(InvalidConfiguration, match=r"belongs to another user \(id \d+\) and is not used"):
        read_trusted(home / "file")


def test_what_is_no_file_is_refused_without_waiting_for_it(home: Path) -> None:
    os.mkfifo(home / "fifo")
    (home / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(InvalidConfiguration, match="is no regular file"):
            read_trusted(home / name)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(home / "socket"))
        with pytest.raises(OSError, match="No such device"):
            read_trusted(home / "socket")


def test_a_missing_file_is_missing(home: Path) -> None:
    (home / "dangling").symlink_to("nowhere")
    for name in ("missing", "dangling"):
        with pytest.raises(FileNotFoundError):
            read_trusted(home / name)


# --- groups ---


def test_the_group_of_one_user_counts_as_that_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    def user(name: str, group: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", 1000, group, "", "/", "/bin/sh"))

    def group(name: str, *members: str) -> grp.struct_group:
        return grp.struct_group((name, "x", 1000, list(members)))

    everyone = [user("ann", 1000)]
    monkeypatch.setattr(pwd, "getpwuid", lambda _user: everyone[0])
    monkeypatch.setattr(pwd, "getpwall", lambda: everyone)
    is_group_of_one = private_files._is_group_of_one.__wrapped__
    for found, expected in (
        (group("ann"), True),
        (group("ann", "ann"), True),
        (group("ann", "bob"), False),
        (group("staff"), False),
    ):
        monkeypatch.setattr(grp, "getgrgid", lambda _group, found=found: found)
        assert is_group_of_one(1000, 1000) is expected
    monkeypatch.setattr(grp, "getgrgid", lambda _group: group("ann"))
    everyone.append(user("bob", 1000))
    assert not is_group_of_one(1000, 1000), "bob's first group is ann's"
    assert is_group_of_one(1000, 0), "root's group"


def test_a_group_without_a_name_has_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not private_files._is_group_of_one.__wrapped__(4_000_000_000, 4_000_000_001)


@pytest.mark.parametrize(("number", "expected"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.EACCES, False)])
def test_want_of_descriptors_is_told_from_other_errors(number: int, expected: bool) -> None:
    assert is_exhausted(OSError(number, "")) is expected
