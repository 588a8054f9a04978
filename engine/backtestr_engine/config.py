"""This module has the engine's options as `config/engine.toml` defines them; defaults are there and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from backtestr_engine.publishing.batching import BatchOptions
from backtestr_engine.publishing.payloads import CompressionOptions
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.options import load_options

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `[worker]`."""

    chunk_bars: _Positive
    bars_cache_bytes: _Positive
    beat_interval_ms: Annotated[int, msgspec.Meta(ge=10)]
    question_time_limit_ms: _Positive
    outbox: _Positive
    memory_limit_bytes: Annotated[int, msgspec.Meta(ge=0)]
    print_bytes: Annotated[int, msgspec.Meta(ge=0)]


class AlgorithmOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `[algorithms]`."""

    folder: Annotated[str, msgspec.Meta(min_length=1)]
    load_time_limit_ms: Annotated[int, msgspec.Meta(ge=10)]

    def folder_in(self, data_dir: Path) -> Path:
        """Return the folder of algorithms; a relative path is relative to the data directory."""
        return data_dir / Path(self.folder).expanduser()


class BatchingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `[batching]`."""

    adaptive: bool
    adapt_interval_ms: Annotated[int, msgspec.Meta(ge=10)]
    prices: BatchOptions
    progress: BatchOptions
    orders: BatchOptions
    positions: BatchOptions

    @property
    def classes(self) -> dict[str, BatchOptions]:
        """The options of each topic class, by the first part of its topics' names."""
        return {
            "prices": self.prices,
            "progress": self.progress,
            "orders": self.orders,
            "positions": self.positions,
        }


class TableOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `[tables]`."""

    file_from_bytes: Annotated[int, msgspec.Meta(ge=0)]
    max_bytes: Annotated[int, msgspec.Meta(ge=0)]
    max_age_ms: _Positive


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All options of the engine."""

    worker: WorkerOptions
    algorithms: AlgorithmOptions
    batching: BatchingOptions
    compression: CompressionOptions
    tables: TableOptions
    conventions: Conventions


def load_config(own_dir: Path | None) -> EngineConfig:
    """Load the options, overlaid with those in `own_dir`; raise `InvalidConfiguration`, naming file and option."""
    return load_options("engine.toml", EngineConfig, own_dir)
