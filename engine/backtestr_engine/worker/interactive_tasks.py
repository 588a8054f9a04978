"""Interactive tasks are answered at once by an interactive worker: one method for each kind of work, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from backtestr_engine.backtest.evaluation import evaluated, prepare_evaluation
from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import RecordedRun
from backtestr_engine.backtest.tables import HandOver, Table, attach_all
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.series_facts import delete, describe, store_resampled
from backtestr_engine.importing.importer import ReadsFile, import_market_data
from backtestr_engine.library.library import Library
from backtestr_engine.library.source_files import Limit, unlimited
from backtestr_engine.library.stored_samples import series_parts
from backtestr_engine.publishing.stream_pages import Pack
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import StateConflict
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm, Evaluation
from backtestr_protocol.import_messages import ImportMarketData
from backtestr_protocol.messages import (
    AlgorithmRef,
    BacktestConfig,
    BacktestRef,
    DeleteMarketData,
    DescribeMarketData,
    FetchMissed,
    GetBacktestResults,
    GetMarketData,
    PerformanceMetrics,
    RegisterAlgorithm,
    ResampleMarketData,
    SeriesList,
    TableName,
)
from backtestr_protocol.worker_channel import OpenReplay, Work

from .market_data import market_data
from .price_replays import ReplayBars, read_replay_bars
from .stored_streams import StoredStreams
from .sweeping.sweep_results import delete_answer, results_answer
from .sweeping.sweep_spans import SweepSpans
from .sweeping.sweep_store import SweepStore
from .sweeping.sweep_tasks import SweepTasks
from .sweeping.trial_store import TrialStore
from .sweeping.trial_tasks import trials_answer
from .table_files import TableFiles
from .wanted_results import WantedResults

# The frames of an answer: the Success data, and its attachments.
Frames = list[bytes]

# The tables that GetBacktestResults attaches if it names none.
DEFAULT_TABLES: list[TableName] = ["equity", "trades", "orders"]

_algorithm_ref = msgspec.msgpack.Decoder(AlgorithmRef)
_backtest_ref = msgspec.msgpack.Decoder(BacktestRef)
_config = msgspec.msgpack.Decoder(BacktestConfig)
_delete = msgspec.msgpack.Decoder(DeleteMarketData)
_describe = msgspec.msgpack.Decoder(DescribeMarketData)
_evaluate = msgspec.msgpack.Decoder(EvaluateAlgorithm)
_fetch = msgspec.msgpack.Decoder(FetchMissed)
_get_market_data = msgspec.msgpack.Decoder(GetMarketData)
_get_results = msgspec.msgpack.Decoder(GetBacktestResults)
_open_replay = msgspec.msgpack.Decoder(OpenReplay)
_import = msgspec.msgpack.Decoder(ImportMarketData)
_register = msgspec.msgpack.Decoder(RegisterAlgorithm)
_resample = msgspec.msgpack.Decoder(ResampleMarketData)


class Means(msgspec.Struct, frozen=True):
    """The means of a worker: `read_file` reads files of others for imports, where that may end a process.

    `limit` runs the algorithm of an evaluation, which may not come back. `table_files` are those that clients map;
    without them every table is an attachment. `sweeps` has the rows of sweeps, and `trials` is the ledger of trials;
    without both there is no task of a sweep, and without the ledger no backtest is entered.
    """

    read_file: ReadsFile | None = None
    limit: Limit = unlimited
    table_files: TableFiles | None = None
    sweeps: SweepStore | None = None
    trials: TrialStore | None = None


class InteractiveTasks:
    """The kinds of interactive tasks, on the catalogue, results and library of one worker."""

    def __init__(
        self,
        catalog: Catalog,
        results: ResultStore,
        conventions: Conventions,
        library: Library,
        wall_ms: Callable[[], int],
        means: Means | None = None,
        *,
        pack: Pack,
    ) -> None:
        """`pack` makes the payloads of published messages that are fetched."""
        self._stored_streams = StoredStreams(results, pack)
        self._means = means or Means()
        self._catalog = catalog
        self._results = results
        self._conventions = conventions
        self._library = library
        self._wall_ms = wall_ms
        self._opened: list[ReplayBars] = []
        self._methods: Mapping[Work, Callable[[bytes], Frames]] = {
            "CheckBacktest": self._check_backtest,
            "OpenReplay": self._open_replay,
            "RegisterAlgorithm": self._register_algorithm,
            "GetAlgorithmStatus": self._algorithm_info,
            "EvaluateAlgorithm": self._evaluate_algorithm,
            "ListMarketData": self._list_market_data,
            "GetMarketData": self._market_data,
            "ImportMarketData": self._import_market_data,
            "DescribeMarketData": self._describe_market_data,
            "ResampleMarketData": self._resample_market_data,
            "DeleteMarketData": self._delete_market_data,
            "GetBacktestResults": self._backtest_results,
            "GetPerformanceMetrics": self._performance_metrics,
            "FetchMissed": self._missed,
        }
        if (trials := self._means.trials) is not None:
            self._methods = {**self._methods, "GetTrials": lambda data: self._trials(trials, data)}
        if (store := self._means.sweeps) is not None and trials is not None:
            sweeps = SweepTasks(catalog, conventions, library.find, store, trials)
            spans = SweepSpans(sweeps, conventions, catalog.root)
            self._methods = {
                **self._methods,
                "CheckSweep": spans.check,
                "SurveySweep": sweeps.survey,
                "ProposeBatch": sweeps.propose,
                "RunBlock": sweeps.run_block,
                "RunSpan": spans.run,
                "OpenSweepRun": sweeps.open_row,
                "GetSweepResults": lambda data: results_answer(store, data, self._hand_over),
                "DeleteSweep": lambda data: delete_answer(store, data),
            }

    def answer(self, work: Work, data: bytes) -> Frames:
        """Return the frames of the answer; a raised `BacktestrError` is the answer, too."""
        return self._methods[work](data)

    def _hand_over(self, mapped: bool) -> HandOver:
        files = self._means.table_files
        return files.hand_over if mapped and files is not None else attach_all

    def _check_backtest(self, data: bytes) -> Frames:
        """Check a backtest, and return its configuration as it will be run.

        The configuration names the version of its algorithm, so that an algorithm registered while it waits changes
        nothing. Raises what `prepare` raises, and `StateConflict` for an id that has results: they are not overwritten.
        """
        config = decode(_config, data)
        if config.backtest_id is not None and self._results.has(config.backtest_id):
            raise StateConflict(
                f"backtest {config.backtest_id!r} has results; choose another backtestId, or leave it out"
            )
        plan = prepare(config, self._catalog, self._conventions, self._library.find)
        return [encode(msgspec.structs.replace(plan.config, algorithm_id=plan.algorithm.algorithm_id))]

    def take_opened(self) -> list[ReplayBars]:
        """Return the price replays opened since the last call."""
        opened, self._opened = self._opened, []
        return opened

    def _open_replay(self, data: bytes) -> Frames:
        """Read the bars of a price replay, which must be hosted before this answer is sent."""
        replay = read_replay_bars(self._catalog, decode(_open_replay, data))
        self._opened.append(replay)
        return [encode(replay.opened)]

    def _register_algorithm(self, data: bytes) -> Frames:
        return [encode(self._library.register(decode(_register, data), self._wall_ms(), series_parts(self._catalog)))]

    def _algorithm_info(self, data: bytes) -> Frames:
        """Return the facts of a version that the broker does not remember; the broker adds its own."""
        return [encode(self._library.info(decode(_algorithm_ref, data).algorithm_id))]

    def _evaluate_algorithm(self, data: bytes) -> Frames:
        """Evaluate an algorithm on stored bars, and hand over the table of its signals."""
        request = decode(_evaluate, data)
        plan = prepare_evaluation(request, self._catalog, self._conventions, self._library.find)
        frame = self._means.limit(f"evaluating {plan.algorithm.name}", lambda: evaluated(plan))
        references, attachments = self._hand_over(request.mapped)([Table("signals", lambda: frame)])
        answer = Evaluation(
            algorithm_id=plan.algorithm.algorithm_id,
            timeframe=plan.panel.timeframe,
            parameters=dict(plan.parameters),
            tables=references,
            warmup_bars=0 if plan.warm_up is None else plan.warm_up.fewest,
        )
        return [encode(answer), *attachments]

    def _list_market_data(self, _data: bytes) -> Frames:
        return [encode(SeriesList(series=self._catalog.series()))]

    def _market_data(self, data: bytes) -> Frames:
        request = decode(_get_market_data, data)
        found, attachments = market_data(self._catalog, request, self._hand_over(request.mapped))
        return [encode(found), *attachments]

    def _import_market_data(self, data: bytes) -> Frames:
        return [encode(import_market_data(self._catalog, decode(_import, data), self._means.read_file))]

    def _describe_market_data(self, data: bytes) -> Frames:
        return [encode(describe(self._catalog, decode(_describe, data)))]

    def _resample_market_data(self, data: bytes) -> Frames:
        return [encode(store_resampled(self._catalog, decode(_resample, data)))]

    def _delete_market_data(self, data: bytes) -> Frames:
        return [encode(delete(self._catalog, decode(_delete, data)))]

    def _backtest_results(self, data: bytes) -> Frames:
        request = decode(_get_results, data)
        found, attachments = self._results.read(
            request.backtest_id,
            DEFAULT_TABLES if request.tables is None else request.tables,
            self._hand_over(request.mapped),
        )
        return [encode(found), *attachments]

    def wanted(self, data: bytes, recorded: RecordedRun) -> WantedResults:
        """Return the answer to a request for the results of a run that ends now."""
        request = decode(_get_results, data)
        names = DEFAULT_TABLES if request.tables is None else request.tables
        return WantedResults(recorded, names, self._hand_over(request.mapped))

    def _trials(self, trials: TrialStore, data: bytes) -> Frames:
        """List groups of trials; a name is wrong that is neither there nor in the library or the catalogue."""

        def algorithms() -> list[str]:
            return [one.name for one in self._library.infos()]

        def symbols() -> list[str]:
            return [one.symbol for one in self._catalog.series()]

        return trials_answer(trials, data, algorithms, symbols)

    def _missed(self, data: bytes) -> Frames:
        """Return a page of what a backtest has published that has ended."""
        return [self._stored_streams.page(decode(_fetch, data))]

    def _performance_metrics(self, data: bytes) -> Frames:
        found, _ = self._results.read(decode(_backtest_ref, data).backtest_id, [])
        return [encode(PerformanceMetrics(backtest_id=found.backtest_id, metrics=found.metrics))]
