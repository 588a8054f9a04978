"""The algorithms that a worker can run: built in, from the folder of own algorithms, and registered.

A registered source runs when it is first needed, never at a worker's start: a harmful source then affects only the
requests for it. When it is registered it runs in a process of its own, and is kept only if that process survives.
Registrations of other workers are found on disk; one that cannot be read is a problem of that algorithm alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm, version_of
from backtestr_engine.built_in import BUILT_IN
from backtestr_protocol.errors import DataError, NotFound, StateConflict, unknown
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmList, LookAhead, Origin, RegisterAlgorithm

from .inspection import Examine, examine
from .registrations import MAX_NAMES, RegisteredAlgorithms
from .source_files import Guard, Limit, Source, forget, load_source, named_in, no_guard, problem_of, unlimited
from .stored_samples import SeriesPart

# Registered algorithms that stay loaded. To load one again takes milliseconds.
MAX_LOADED = 64


class Library:
    """All algorithms of a worker.

    `folder` has own algorithms by name, none by the name of a built-in one. `limit` bounds the time of sources and
    checks. `examine_apart` examines a source that is to be registered, `guard` surrounds the loading of one that is.
    """

    def __init__(
        self,
        folder: Mapping[str, Algorithm] | None = None,
        registered: RegisteredAlgorithms | None = None,
        limit: Limit = unlimited,
        examine_apart: Examine | None = None,
        guard: Guard = no_guard,
    ) -> None:
        self._by_name = {**BUILT_IN, **(folder or {})}
        self._by_id = {one.algorithm_id: one for one in self._by_name.values()}
        self._registered = registered
        self._limit = limit
        self._examine: Examine = examine_apart or partial(examine, limit=limit)
        self._guard = guard
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

    def look_ahead(self, algorithm_id: str) -> LookAhead | None:
        """Return the verdict of the look-ahead check on a version; None where it was not checked."""
        try:
            return self.info(algorithm_id).look_ahead
        except (NotFound, DataError):  # its registration was damaged after it was loaded
            return None

    def infos(self) -> list[AlgorithmInfo]:
        """List the newest version of each algorithm, sorted by name, for `ListAlgorithms`."""
        return self.survey().algorithms

    def survey(self) -> AlgorithmList:
        """List the newest version of each algorithm, sorted by name, and the registrations that cannot be read."""
        infos = {name: _own_info(one) for name, one in self._by_name.items()}
        problems = []
        registered = self._registered.names() if self._registered else []
        for name in registered[:MAX_NAMES]:
            assert self._registered is not None
            path = self._registered.path_of(name)
            try:
                found = self._registered.find(name)
            except DataError as error:
                problems.append(msgspec.structs.replace(problem_of(str(path), error.message), name=name))
                continue
            if found is not None:
                infos.setdefault(name, found)
            else:
                problems.append(problem_of(str(path), f"{path}: it is not the file of a registered algorithm"))
        if len(registered) > MAX_NAMES:
            left = f"{len(registered) - MAX_NAMES} registrations are not read; {MAX_NAMES} are the most there can be"
            problems.append(problem_of("", left))
        return AlgorithmList(algorithms=[infos[name] for name in sorted(infos)], problems=problems)

    def register(self, request: RegisterAlgorithm, wall_ms: int, parts: Sequence[SeriesPart] = ()) -> AlgorithmInfo:
        """Run a source, check its algorithm for look-ahead and keep both; it is on disk when this returns.

        `parts` of stored series are among the samples of the check. The newest version, registered again, stays as it
        is; an earlier version becomes the newest again. Raises `StateConflict` for a name that is taken,
        `ValidationError` for a source that does not define it exactly once, `AlgorithmError` for a source that cannot
        be run, and `TimedOut` for one that does not end in time.
        """
        name = request.name
        assert self._registered is not None, "this library has no place for registrations"
        if (taken := self._by_name.get(name)) is not None:
            whose = "built in" if name in BUILT_IN else "in the folder of own algorithms"
            raise StateConflict(
                f"the algorithm {name!r} is {whose}; register yours under another name", currentValue=taken.algorithm_id
            )
        version = version_of(request.source)
        newest = self._readable(name)
        info = self._readable(f"{name}@{version}")
        if info is None or not self._registered.has(info, request.source):
            examined = self._examine(name, Source(request.source, f"{name}.py", f"{name}@{version} examined"), parts)
            info = msgspec.structs.replace(examined, origin="registered")
        elif newest is not None and newest.version == version:
            return newest
        # Later than the version before, even if the clock went back: the name means the version with the latest time.
        time = wall_ms if newest is None else max(wall_ms, (newest.registered_time or 0) + 1)
        return self._registered.add(msgspec.structs.replace(info, registered_time=time), request.source)

    def _readable(self, name_or_id: str) -> AlgorithmInfo | None:
        """Return the registration if it is there and can be read; one that is damaged is registered anew."""
        assert self._registered is not None
        try:
            return self._registered.find(name_or_id)
        except DataError:
            return None

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
        with self._guard(Source(source, path, info.algorithm_id)):
            found = self._limit(f"loading {path}", lambda: load_source(source, path, info.algorithm_id))
        algorithm = named_in(found, info.name)
        self._loaded[info.algorithm_id] = algorithm
        if len(self._loaded) > MAX_LOADED:
            dropped, _ = self._loaded.popitem(last=False)
            forget(str(self._registered.source_path(info).with_name(f"{dropped}.py")), dropped)
        return algorithm


def _own_info(one: Algorithm) -> AlgorithmInfo:
    origin: Origin = "built-in" if BUILT_IN.get(one.name) is one else "folder"
    return msgspec.structs.replace(one.info, origin=origin)
