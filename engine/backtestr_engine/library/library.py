"""The algorithms that a worker can run: built in, from the folder of own algorithms, and registered.

A registered source runs when it is first needed, never at a worker's start: a harmful source then affects only the
requests for it. Registrations of other workers are found on disk.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm, version_of
from backtestr_engine.built_in import BUILT_IN
from backtestr_protocol.errors import DataError, NotFound, StateConflict, ValidationError, unknown
from backtestr_protocol.messages import AlgorithmInfo, Origin, RegisterAlgorithm

from .inspection import SEED, look_ahead
from .registrations import RegisteredAlgorithms
from .source_files import Limit, forget, load_source, unlimited

# Registered algorithms that stay loaded. To load one again takes milliseconds.
MAX_LOADED = 64

_log = logging.getLogger(__name__)


class Library:
    """All algorithms of a worker.

    `folder` has own algorithms by name, none by the name of a built-in one. `limit` bounds the time of sources and
    checks.
    """

    def __init__(
        self,
        folder: Mapping[str, Algorithm] | None = None,
        registered: RegisteredAlgorithms | None = None,
        limit: Limit = unlimited,
    ) -> None:
        self._by_name = {**BUILT_IN, **(folder or {})}
        self._by_id = {one.algorithm_id: one for one in self._by_name.values()}
        self._registered = registered
        self._limit = limit
        self._loaded: OrderedDict[str, Algorithm] = OrderedDict()

    def find(self, name_or_id: str) -> Algorithm:
        """Return the algorithm of that id, or of that name in its newest version.

        Raises `NotFound` naming the near miss; for a registered algorithm that no longer loads, `AlgorithmError`,
        `TimedOut` or `DataError`.
        """
        found = self._own(name_or_id)
        return self._load(self._find_registered(name_or_id)) if found is None else found

    def info(self, name_or_id: str) -> AlgorithmInfo:
        """Return the facts of an algorithm without running anything. Raises `NotFound` and `DataError`."""
        found = self._own(name_or_id)
        return self._find_registered(name_or_id) if found is None else _own_info(found)

    def infos(self) -> list[AlgorithmInfo]:
        """List the newest version of each algorithm, sorted by name, for `ListAlgorithms`.

        A registration that cannot be read is left out and logged.
        """
        infos = {name: _own_info(one) for name, one in self._by_name.items()}
        for name in self._registered.names() if self._registered else []:
            try:
                infos.setdefault(name, self._find_registered(name))
            except (DataError, NotFound) as error:
                _log.warning("a registered algorithm is left out: %s", error.message)
        return [infos[name] for name in sorted(infos)]

    def register(self, request: RegisterAlgorithm, wall_ms: int) -> AlgorithmInfo:
        """Run a source, check its algorithm for look-ahead and keep both; it is on disk when this returns.

        The newest version, registered again, stays as it is; an earlier version becomes the newest again. Raises
        `StateConflict` for a name that is taken, `ValidationError` for a source that does not define it exactly once,
        `AlgorithmError` for a source that cannot be run, and `TimedOut` for one that does not end in time.
        """
        name = request.name
        assert self._registered is not None, "this library has no place for registrations"
        if (taken := self._by_name.get(name)) is not None:
            whose = "built in" if name in BUILT_IN else "in the folder of own algorithms"
            raise StateConflict(
                f"the algorithm {name!r} is {whose}; register yours under another name", currentValue=taken.algorithm_id
            )
        version = version_of(request.source)
        newest = self._registered.find(name)
        info = self._registered.find(f"{name}@{version}")
        if info is None or not self._registered.has(info, request.source):
            info = self._examine(request, version)
        elif newest is not None and newest.version == version:
            return newest
        # Later than the version before, even if the clock went back: the name means the version with the latest time.
        time = wall_ms if newest is None else max(wall_ms, (newest.registered_time or 0) + 1)
        return self._registered.add(msgspec.structs.replace(info, registered_time=time), request.source)

    def _own(self, name_or_id: str) -> Algorithm | None:
        return self._by_name.get(name_or_id) or self._by_id.get(name_or_id)

    def _find_registered(self, name_or_id: str) -> AlgorithmInfo:
        info = self._registered.find(name_or_id) if self._registered else None
        if info is not None:
            return info
        name, at, _ = name_or_id.partition("@")
        if at and (own := self._by_name.get(name)) is not None:
            raise NotFound(
                f"{name_or_id[:128]!r} is not there: {name} is {own.algorithm_id} here; if its file was changed while "
                "the broker ran, restart the broker",
                kind="algorithm",
                name=name_or_id[:128],
                known=[own.algorithm_id],
            )
        raise unknown(
            "algorithm", name_or_id, {*self._by_name, *(self._registered.names() if self._registered else ())}
        )

    def _load(self, info: AlgorithmInfo) -> Algorithm:
        """Load the algorithm of a registration. Its errors show the file in which it is kept."""
        if (loaded := self._loaded.get(info.algorithm_id)) is not None:
            self._loaded.move_to_end(info.algorithm_id)
            return loaded
        assert self._registered is not None
        source, path = self._registered.source(info), str(self._registered.source_path(info))
        if version_of(source) != info.version:
            raise DataError(f"{path} was changed after it was registered; register what it should be again")
        found = self._run(info.name, source, path, info.algorithm_id)
        self._loaded[info.algorithm_id] = found
        if len(self._loaded) > MAX_LOADED:
            dropped, _ = self._loaded.popitem(last=False)
            forget(str(self._registered.source_path(info).with_name(f"{dropped}.py")), dropped)
        return found

    def _examine(self, request: RegisterAlgorithm, version: str) -> AlgorithmInfo:
        """Run and check a source that is not registered yet. Its errors show it as `<name>.py`."""
        file, module = f"{request.name}.py", f"{request.name}@{version} examined"
        try:
            found = self._run(request.name, request.source, file, module)
            verdict = self._limit(f"the look-ahead check of {request.name}", lambda: look_ahead(found, SEED))
        finally:
            forget(file, module)
        return msgspec.structs.replace(found.info, origin="registered", look_ahead=verdict)

    def _run(self, name: str, source: str, file: str, module: str) -> Algorithm:
        """Return the algorithm `name` that `source` defines. Raises as `register`."""
        found = self._limit(f"loading {file}", lambda: load_source(source, file, module))
        named = [one for one in found if one.name == name]
        if len(named) == 1:
            return named[0]
        defined = [one.name for one in found]
        if not found:
            reason = f"the source defines no algorithm; put @algorithm({name!r}, …) above the function that it is"
        elif named:
            reason = f"the source defines {name!r} {len(named)} times; name each of its algorithms differently"
        else:
            reason = f"the source defines no algorithm {name!r}, but {', '.join(map(repr, defined))}"
        raise ValidationError(reason, path="$.name", expected=defined, got=name)


def _own_info(one: Algorithm) -> AlgorithmInfo:
    origin: Origin = "built-in" if BUILT_IN.get(one.name) is one else "folder"
    return msgspec.structs.replace(one.info, origin=origin)
