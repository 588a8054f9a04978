"""The start of a worker: it opens what it works on, and loads the user's algorithms, whatever their files are.

A file that no worker has loaded before is loaded in a child process first, by one worker for all of them; the verdicts
are kept, so that the start with known files costs no process. A worker that ends while it loads a file all the same
leaves a mark with the file's name, and the next one leaves that file out. A worker before which several ended soon
after their start loads none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.config import EngineConfig
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.library.library import Library
from backtestr_engine.library.registrations import RegisteredAlgorithms
from backtestr_engine.library.source_files import Limit, Loaded, Source, load_folder, problem_of
from backtestr_engine.library.verdicts import Verdicts
from backtestr_protocol.import_messages import ImportMarketData
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmProblem, Timeframe
from backtestr_protocol.system.file_lock import FileLock
from backtestr_protocol.worker_channel import WorkerSettings

from .child_tasks import INSPECTION_SECONDS, ChildTasks
from .time_limit import time_limit

# The folders in the data directory.
_REGISTERED = "algorithms-registered"
_VERDICTS = "algorithm-verdicts"

SAFE_AFTER = 3
"""Early exits in a row after which a worker loads no files of the user: the broker gives up after one more."""

_PATIENCE_SECONDS = 2.0


class Equipment(msgspec.Struct, frozen=True):
    """A worker works with these: the stored series, the algorithms, and the child processes that do what may kill."""

    catalog: Catalog
    library: Library
    child_tasks: ChildTasks
    algorithms: list[AlgorithmInfo]
    problems: list[AlgorithmProblem]
    has_user_code: bool


def equip(
    settings: WorkerSettings, config: EngineConfig, data_dir: Path, limit: Limit, loaded: Callable[[], None]
) -> Equipment:
    """Open catalogue and library, and load the user's files. `limit` is for registered sources, which run in tasks.

    `loaded` is called after each of them was loaded.
    """
    options = config.algorithms
    seconds = options.load_time_limit_ms / 1000
    child_tasks = ChildTasks(seconds, config.worker.memory_limit_bytes)
    verdicts = Verdicts(data_dir / _VERDICTS, settings.worker_id, _broker(settings))
    verdicts.blame()

    def read_apart(path: Path, symbol: str, timeframe: Timeframe) -> Bars:
        request = ImportMarketData(path=str(path), symbol=symbol, timeframe=timeframe, format="parquet")
        [bars] = child_tasks.read_file(request).series
        assert isinstance(bars, Bars), "a file with a timeframe holds bars, or makes them"
        return bars

    @contextlib.contextmanager
    def guard(source: Source) -> Iterator[None]:
        with verdicts.loading(source):
            yield
        loaded()

    folder = options.folder_in(data_dir)
    if settings.early_exits < SAFE_AFTER:

        def vet(sources: Sequence[Source]) -> list[str | None]:
            return _vet(sources, verdicts, child_tasks, data_dir / _VERDICTS / "lock")

        # No client waits for an answer, and the worker is needed: a thread that is stuck in a file is left.
        own = load_folder(folder, BUILT_IN, time_limit(seconds, _PATIENCE_SECONDS), vet, verdicts.loading)
    else:
        own = _none_of(folder, settings.early_exits)
    library = Library(own.algorithms, RegisteredAlgorithms(data_dir / _REGISTERED), limit, child_tasks.examine, guard)
    survey = library.survey()
    catalog = Catalog(data_dir / "catalog", cache_bytes=config.worker.bars_cache_bytes, read_apart=read_apart)
    problems = [*own.problems, *survey.problems]
    return Equipment(catalog, library, child_tasks, survey.algorithms, problems, bool(own.algorithms))


def _none_of(folder: Path, early_exits: int) -> Loaded:
    """Return no algorithms, and the reason, if there are files."""
    if not any(folder.glob("*.py")):
        return Loaded({}, [])
    reason = (
        f"{folder}: its files are not loaded: a worker that had loaded them ended soon after its start, {early_exits} "
        "times in a row; look in the log, remove what was added last, and restart the broker"
    )
    return Loaded({}, [problem_of(str(folder), reason)])


def _vet(sources: Sequence[Source], verdicts: Verdicts, child_tasks: ChildTasks, lock: Path) -> list[str | None]:
    """Return for each source the reason why it must not be loaded; those without a verdict are inspected."""
    found = [verdicts.on(source) for source in sources]
    if None in found:
        with _locked(lock):  # of several workers that start, one inspects, and the others wait for its verdicts
            found = [verdicts.on(source) for source in sources]
            unknown = [source for source, verdict in zip(sources, found, strict=True) if verdict is None]
            problems = dict(zip(unknown, child_tasks.inspect(unknown), strict=True))
            for source, problem in problems.items():
                verdicts.keep(source, problem)
            verdicts.prune()
        return [
            problems[source] if verdict is None else verdict.problem
            for source, verdict in zip(sources, found, strict=True)
        ]
    return [verdict.problem for verdict in found if verdict is not None]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock within the block. Who cannot get it goes on without: the work is then done twice."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.take(2 * INSPECTION_SECONDS)
            stack.callback(lock.release)
        yield


def _broker(settings: WorkerSettings) -> str:
    """Return a text that is another for every start of a broker."""
    parent = os.getppid()
    try:
        started = psutil.Process(parent).create_time()
    except psutil.Error:  # it has just ended
        started = 0.0
    return f"{settings.endpoint} {parent} {started}"
