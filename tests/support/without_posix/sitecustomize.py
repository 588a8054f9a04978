"""Python imports this at its start where this folder is in PYTHONPATH: backtestr then finds only what Windows has.

Its code cannot import the modules of POSIX, and does not find their functions, signals and flags; what both systems
have behaves as on Windows where that differs. Other packages, which have code for Windows of their own, are left alone.
ZeroMQ has no ipc. So what runs here shows that backtestr needs nothing of POSIX; it is no test of Windows itself.

What behaves otherwise: a folder cannot be opened; a file that was opened as text gets Windows' ends of lines; only
what was opened for writing is synced; an open file keeps its name; `rename` replaces nothing; only sockets can be
waited for; a process can only be killed.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import os
import pathlib
import select
import selectors
import signal
import socket
import stat
import subprocess
import sys
from types import ModuleType
from typing import Any

from windows_names import (  # type: ignore[import-not-found]  # it is found beside this file, which is in sys.path
    CREATE_NEW_PROCESS_GROUP,
    MISSING_MODULES,
    O_BINARY,
    is_missing,
)


class _AsOnWindows(ModuleType):
    """A module without what Windows lacks, and with other functions in place of some."""

    def __init__(self, real: ModuleType, instead: dict[str, Any]) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(_real=real, **instead)

    def __getattr__(self, name: str) -> Any:
        if is_missing(self.__name__, name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._real, name)

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._real) if not is_missing(self.__name__, name)]


# --- files ---

_text_files: set[int] = set()  # descriptors that were opened without O_BINARY


def _refuse(kind: type[OSError], number: int, path: Any) -> None:
    raise kind(number, f"{os.strerror(number)} (as on Windows)", str(path))


def is_open_somewhere(path: Any) -> bool:
    """Return whether a process has a file open or mapped."""
    wanted = os.path.realpath(path)
    for process in filter(str.isdecimal, os.listdir("/proc")):
        folder = f"/proc/{process}/fd"
        try:
            handles = os.listdir(folder)
            with open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as maps:
                if any(line.rstrip("\n").endswith(wanted) for line in maps):
                    return True
        except OSError:
            continue
        for handle in handles:
            try:
                if os.readlink(f"{folder}/{handle}") == wanted:
                    return True
            except OSError:
                continue
    return False


def _check_closed(*paths: Any) -> None:
    for path in paths:
        if os.path.isfile(path) and not os.path.islink(path) and is_open_somewhere(path):
            _refuse(PermissionError, errno.EACCES, path)


# Where a call has no descriptors of folders, as on Windows, Python itself raises NotImplementedError, and so do these.


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if os.path.isdir(path):
        _refuse(PermissionError, errno.EACCES, path)
    descriptor = os.open(path, flags & ~O_BINARY, mode)
    _text_files.discard(descriptor)
    if not flags & O_BINARY:
        _text_files.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    _text_files.discard(descriptor)
    os.close(descriptor)


def _write(descriptor: int, content: Any) -> int:
    if descriptor in _text_files:
        os.write(descriptor, bytes(content).replace(b"\n", b"\r\n"))
        return len(bytes(content))
    return os.write(descriptor, content)


def _read(descriptor: int, count: int) -> bytes:
    content = os.read(descriptor, count)
    return content.replace(b"\r\n", b"\n") if descriptor in _text_files else content


def _fdopen(descriptor: int, *arguments: Any, **named: Any) -> Any:
    _text_files.discard(descriptor)  # Python's files are binary beneath
    return os.fdopen(descriptor, *arguments, **named)


def _fsync(descriptor: int) -> None:
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        _refuse(OSError, errno.EBADF, descriptor)
    os.fsync(descriptor)


def _no_sockets(call: Any) -> Any:
    def checked(descriptor: int, *arguments: Any, **named: Any) -> Any:
        if isinstance(descriptor, int) and stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            _refuse(OSError, errno.EBADF, descriptor)
        return call(descriptor, *arguments, **named)

    return checked


def _only_paths(call: Any) -> Any:
    def checked(path: Any = ".", *arguments: Any, **named: Any) -> Any:
        if isinstance(path, int) or any(name.endswith("dir_fd") and named[name] is not None for name in named):
            raise NotImplementedError("descriptors of folders are unavailable on this platform")
        return call(path, *arguments, **named)

    return checked


def _replace(source: Any, target: Any) -> None:
    _check_closed(source, target)
    os.replace(source, target)


def _rename(source: Any, target: Any) -> None:
    if os.path.lexists(target):
        _refuse(FileExistsError, errno.EEXIST, target)
    if os.path.isdir(source):
        _check_closed(*(os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names))
    _replace(source, target)


def _unlink(path: Any, *, dir_fd: int | None = None) -> None:
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    _check_closed(path)
    os.unlink(path)


def _of_path(own: Any, name: str) -> Any:
    """Return a method of `Path` that does as `own` when backtestr's code calls it."""
    real = getattr(pathlib.Path, name)

    def method(self: pathlib.Path, *arguments: Any, **named: Any) -> Any:
        if _is_of_backtestr(sys._getframe(1).f_globals):
            if name == "unlink":
                if named.get("missing_ok") and not os.path.lexists(self):
                    return None
                return own(self)
            own(self, *arguments)
            return type(self)(arguments[0])
        return real(self, *arguments, **named)

    return method


# --- waiting ---


def check_is_socket(source: Any) -> None:
    """Raise for what cannot be waited for: ZeroMQ's descriptors are sockets on Windows."""
    descriptor = source if isinstance(source, int) else source.fileno()
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISCHR(mode):
        raise OSError(errno.ENOTSOCK, "An operation was attempted on something that is not a socket (as on Windows)")


class _Selector(selectors.SelectSelector):
    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        check_is_socket(fileobj)
        return super().register(fileobj, events, data)


def _select(readable: Any, writable: Any, exceptional: Any, timeout: float | None = None) -> Any:
    if not (readable or writable or exceptional):
        raise OSError(errno.EINVAL, "An invalid argument was supplied (as on Windows)")
    for one in (*readable, *writable, *exceptional):
        check_is_socket(one)
    return select.select(readable, writable, exceptional, timeout)


# --- processes ---


class _Popen(subprocess.Popen[Any]):
    """A process as Windows starts it: without sessions, and without programs of POSIX."""

    def __init__(self, command: Any, *arguments: Any, **named: Any) -> None:
        if named.pop("start_new_session", False) or named.pop("preexec_fn", None):
            raise ValueError("sessions are of POSIX")
        if str(command[0]).startswith("/bin/"):
            raise FileNotFoundError(errno.ENOENT, "The system cannot find the file specified", command[0])
        # A group of its own keeps Ctrl-C from a process.
        named["process_group"] = 0 if named.pop("creationflags", 0) & CREATE_NEW_PROCESS_GROUP else None
        super().__init__(command, *arguments, **named)


def _kill(pid: int, number: int) -> None:
    raise OSError(errno.EPERM, f"signal {number} to {pid}: on Windows that kills a process, or reaches a whole console")


class _CDLL(ctypes.CDLL):
    def __init__(self, name: str | None, *arguments: Any, **named: Any) -> None:
        if name is None:
            raise TypeError("there is no C library without a name on Windows")
        super().__init__(name, *arguments, **named)


INSTEAD: dict[str, dict[str, Any]] = {
    "os": {
        "name": "nt",
        "O_BINARY": O_BINARY,
        "supports_dir_fd": set(),
        "supports_fd": set(),
        "open": _open,
        "close": _close,
        "read": _read,
        "write": _write,
        "fdopen": _fdopen,
        "fsync": _fsync,
        "fstat": _no_sockets(os.fstat),
        "dup": _no_sockets(os.dup),
        "listdir": _only_paths(os.listdir),
        "scandir": _only_paths(os.scandir),
        "stat": _only_paths(os.stat),
        "mkdir": _only_paths(os.mkdir),
        "rmdir": _only_paths(os.rmdir),
        "replace": _replace,
        "rename": _rename,
        "unlink": _unlink,
        "remove": _unlink,
        "kill": _kill,
    },
    "selectors": {"DefaultSelector": _Selector, "SelectSelector": _Selector},
    "select": {"select": _select},
    "subprocess": {"Popen": _Popen, "CREATE_NEW_PROCESS_GROUP": CREATE_NEW_PROCESS_GROUP},
    "ctypes": {"CDLL": _CDLL},
}
_modules = {
    name: _AsOnWindows(real, INSTEAD.get(name, {}))
    for real in (os, signal, socket, select, selectors, subprocess, ctypes, sys.modules["time"])
    for name in (real.__name__,)
}


# --- imports ---


def _is_of_backtestr(names: Any) -> bool:
    """Return whether code with these global names is backtestr's, a `__main__` of its packages too."""
    if not names:
        return False
    own = names.get("__package__") or names.get("__name__") or ""
    return str(own).partition(".")[0] in {"backtestr", "backtestr_broker", "backtestr_engine", "backtestr_protocol"}


_real_import = builtins.__import__


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if level or not _is_of_backtestr(globals):
        found = _real_import(name, globals, locals, fromlist, level)
    elif name.partition(".")[0] in MISSING_MODULES:
        raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
    else:
        found = _real_import(name, globals, locals, fromlist, level)
        if name in _modules:
            found = _modules[name]
    if name == "zmq":
        _take_ipc_away()
    return found


def _take_ipc_away() -> None:
    zmq: Any = sys.modules["zmq"]
    if getattr(zmq.__spec__, "_initializing", False) or getattr(zmq.has, "is_without_ipc", False):
        return  # it is being imported, or was changed already
    real_has, socket_type, poller_type = zmq.has, zmq.Socket, zmq.Poller

    def has(capability: str) -> bool:
        return capability != "ipc" and bool(real_has(capability))

    has.is_without_ipc = True  # type: ignore[attr-defined]  # a mark, for the next import
    zmq.has = has

    def without_ipc(real: Any) -> Any:
        def method(self: Any, address: Any) -> Any:
            if str(address).startswith("ipc:"):
                raise zmq.ZMQError(zmq.EPROTONOSUPPORT)
            return real(self, address)

        return method

    socket_type.bind, socket_type.connect = without_ipc(socket_type.bind), without_ipc(socket_type.connect)
    real_register = poller_type.register

    def register(self: Any, source: Any, flags: int = 3) -> Any:
        if not isinstance(source, zmq.Socket):
            check_is_socket(source)
        return real_register(self, source, flags)

    poller_type.register = register


builtins.__import__ = _import
for _name, _own in (("replace", _replace), ("rename", _rename), ("unlink", _unlink)):
    setattr(pathlib.Path, _name, _of_path(_own, _name))

# Tests look for this, to be sure that it was imported.
os.environ["WITHOUT_POSIX"] = "yes"
