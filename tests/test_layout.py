"""The tests stand where the product's modules stand, and no name stands for two things.

A module has a test of its own name (`tests/<root>/<folder>/test_<module>.py`, or several of the form
`test_<module>_<aspect>.py`), or a row in `COVERED_BY`. So a newcomer finds the tests of a file without a search.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

TESTS = Path(__file__).parent
PACKAGES = {
    "protocol": TESTS.parent / "protocol" / "backtestr_protocol",
    "broker": TESTS.parent / "broker" / "backtestr_broker",
    "engine": TESTS.parent / "engine" / "backtestr_engine",
    "client": TESTS.parent / "clients" / "python" / "backtestr",
}
# Tests of the whole: they name no module.
WHOLE = ("integration", "properties")
ENTRY_POINTS = ("__init__", "__main__")

# Modules without a test of their own name, and the test file that executes their lines.
COVERED_BY = {
    # Structs: the tests of the codec encode and decode every one of them.
    "protocol/build": "tests/client/cli/test_app.py",
    "protocol/envelopes": "tests/protocol/test_codec.py",
    "protocol/system_status": "tests/protocol/test_messages.py",
    "protocol/result_messages": "tests/protocol/test_messages.py",
    "protocol/evaluation_messages": "tests/protocol/test_messages.py",
    "protocol/import_messages": "tests/protocol/test_messages.py",
    "protocol/sweep_messages": "tests/protocol/test_messages.py",
    "protocol/trial_messages": "tests/protocol/test_messages.py",
    "protocol/sweep_tasks": "tests/broker/core/scheduling/test_sweep_scheduling.py",
    "protocol/system/open_flags": "tests/protocol/test_private_files.py",
    "protocol/system/ports": "tests/broker/io/test_sockets.py",
    "broker/__main__": "tests/integration/test_lifecycle.py",
    "broker/broker": "tests/integration/test_embedded.py",
    "broker/core/counts": "tests/broker/core/test_counters.py",
    "broker/core/envelopes": "tests/broker/core/test_core.py",
    "broker/core/events": "tests/broker/recording/test_recorder.py",
    "broker/core/records": "tests/broker/io/test_database.py",
    "broker/core/scheduling/losses": "tests/broker/core/scheduling/test_scheduler_lost_workers.py",
    "broker/core/settings": "tests/broker/test_config.py",
    "broker/core/clients/answers": "tests/broker/core/clients/test_idempotency.py",
    "broker/core/streams/sequenced": "tests/broker/core/streams/test_sequencer.py",
    "broker/io/resources": "tests/broker/io/test_event_loop.py",
    "broker/core/requests/dispatch": "tests/broker/core/test_core.py",
    "broker/core/scheduling/resuming": "tests/broker/core/scheduling/test_scheduler_steering.py",
    "client/market_data": "tests/client/test_client.py",
    "client/sweep_requests": "tests/integration/test_sweeps.py",
    "engine/__main__": "tests/integration/test_inspection.py",
    "engine/config": "tests/integration/test_lifecycle.py",
    "engine/compiled": "tests/engine/test_kernel_cache.py",
    "engine/algorithms/parameters": "tests/engine/algorithms/test_algorithm.py",
    "engine/built_in/bollinger_reversion": "tests/engine/built_in/test_built_in.py",
    "engine/built_in/buy_and_hold": "tests/engine/built_in/test_built_in.py",
    "engine/built_in/donchian_breakout": "tests/engine/built_in/test_built_in.py",
    "engine/built_in/ema_cross": "tests/engine/built_in/test_built_in.py",
    "engine/built_in/macd": "tests/engine/built_in/test_built_in.py",
    "engine/built_in/rsi_reversion": "tests/engine/built_in/test_built_in.py",
    "engine/built_in/sma_cross": "tests/engine/built_in/test_built_in.py",
    "engine/data/arrays": "tests/engine/metrics/test_metrics.py",
    "engine/data/bar_source": "tests/engine/backtest/test_plan.py",
    "engine/data/gaps": "tests/engine/data/test_series_facts.py",
    "engine/importing/foreign_files": "tests/engine/importing/test_unpacking.py",
    "engine/importing/notes": "tests/engine/importing/test_symbol_column.py",
    "engine/importing/parquet_arrow": "tests/engine/importing/test_formats.py",
    "engine/importing/layout": "tests/engine/importing/test_csv_reader.py",
    "engine/importing/rows": "tests/engine/importing/test_importer.py",
    "engine/importing/sources": "tests/engine/importing/test_formats.py",
    "engine/importing/validation": "tests/engine/importing/test_importer.py",
    "engine/library/inspection": "tests/engine/library/test_library.py",
    "engine/simulation/bar_step": "tests/engine/simulation/test_symbol_loop.py",
    "engine/simulation/execution": "tests/engine/simulation/test_symbol_loop.py",
    "engine/cluster/messages": "tests/engine/worker/sweeping/test_cluster_blocks.py",
    "engine/research/sweep_kernels": "tests/engine/research/test_sweep_blocks.py",
    "engine/research/sweep_lines": "tests/engine/research/test_sweep_blocks.py",
    "engine/worker/encryption": "tests/integration/test_portable.py",
    "engine/worker/sweeping/sweep_results": "tests/engine/worker/sweeping/test_sweep_tasks.py",
    "engine/worker/sweeping/trial_log": "tests/engine/worker/sweeping/test_trial_store.py",
    "engine/worker/child_serving": "tests/engine/worker/test_child_tasks.py",
    "engine/worker/file_reader": "tests/engine/worker/test_child_tasks.py",
    "engine/worker/source_inspector": "tests/engine/worker/test_child_tasks.py",
    "client/__main__": "tests/integration/test_command_line.py",
    "client/cli/entry": "tests/client/cli/test_ui_command.py",
    "client/cli/exit_codes": "tests/client/cli/test_console.py",
    "client/ui/io/broker_link": "tests/integration/test_ui.py",
    "client/ui/io/server": "tests/integration/test_ui.py",
    "client/ui/io/tunnel": "tests/integration/test_ui.py",
    "client/io/forks": "tests/client/io/test_io_thread_faults.py",
    "client/embedded_broker": "tests/integration/test_embedded.py",
}

# Test files that name no module, and why.
OF_NO_MODULE = {
    "engine/built_in/test_built_in": "every built-in algorithm passes the same tests",
    "client/test_init": "it checks the public names, which `__init__` has",
}

# Names of the standard library that a folder or file may have all the same, and why.
STANDARD_NAME_ALLOWED = {
    "io": "the word for all code around a core without I/O; only `from backtestr_broker.io import …` reaches it",
}


@cache
def modules(root: str) -> list[PurePosixPath]:
    """Return the modules of a package, `__init__` excepted, each as its path below the package without a suffix."""
    package = PACKAGES[root]
    found = (file.relative_to(package).with_suffix("") for file in sorted(package.rglob("*.py")))
    return [PurePosixPath(one) for one in found if one.name != "__init__"]


@cache
def files_of(root: str) -> list[PurePosixPath]:
    folder = TESTS / root
    return [PurePosixPath(one.relative_to(folder).with_suffix("")) for one in sorted(folder.rglob("test_*.py"))]


def module_of(root: str, test: PurePosixPath) -> PurePosixPath | None:
    """Return the module that a test file names: the longest in its folder that the name begins with."""
    name = test.name.removeprefix("test_")
    support = [PurePosixPath(file.stem) for file in sorted((TESTS / "support" / root).glob("*.py"))]
    matches = [
        one for one in (*modules(root), *support) if one.parent == test.parent and f"{name}_".startswith(f"{one.name}_")
    ]
    return max(matches, key=lambda one: len(one.name), default=None)


@cache
def modules_with_a_test(root: str) -> set[PurePosixPath]:
    return {module for test in files_of(root) if (module := module_of(root, test)) is not None}


def repeated(names: Iterable[str]) -> list[str]:
    seen = list(names)
    return sorted({name for name in seen if seen.count(name) > 1})


every_root = pytest.mark.parametrize("root", PACKAGES)


@every_root
def test_every_module_has_a_test_of_its_name_or_a_row(root: str) -> None:
    named = modules_with_a_test(root)
    missing = [f"{root}/{one}" for one in modules(root) if one not in named and f"{root}/{one}" not in COVERED_BY]
    assert not missing, "write tests/<root>/<folder>/test_<module>.py, or name the covering test in COVERED_BY"


def test_every_row_names_a_module_without_a_test_and_a_test_that_exists() -> None:
    for row, covering in COVERED_BY.items():
        root, _, module = row.partition("/")
        assert PurePosixPath(module) in modules(root), f"COVERED_BY: there is no module {row}"
        assert PurePosixPath(module) not in modules_with_a_test(root), (
            f"COVERED_BY: {row} has a test of its own; remove the row"
        )
        assert (TESTS.parent / covering).is_file(), f"COVERED_BY: {row} names {covering}, which does not exist"


@every_root
def test_every_test_file_names_a_module(root: str) -> None:
    unknown = [
        f"{root}/{test}"
        for test in files_of(root)
        if module_of(root, test) is None and f"{root}/{test}" not in OF_NO_MODULE
    ]
    assert not unknown, "name the file after a module in the same folder, or give the reason in OF_NO_MODULE"


def test_every_exception_for_a_test_file_is_needed() -> None:
    for name in OF_NO_MODULE:
        root, _, test = name.partition("/")
        assert PurePosixPath(test) in files_of(root), f"OF_NO_MODULE: there is no file {name}"
        assert module_of(root, PurePosixPath(test)) is None, f"OF_NO_MODULE: {name} names a module; remove the row"


def test_every_test_file_lies_in_a_folder_of_a_package_or_of_the_whole() -> None:
    known = (*PACKAGES, *WHOLE)
    files = (one.relative_to(TESTS) for one in TESTS.rglob("test_*.py"))
    assert [str(one) for one in files if one.parts[0] not in known] == [Path(__file__).name]


@every_root
def test_no_two_modules_of_a_package_share_a_name(root: str) -> None:
    assert repeated(one.name for one in modules(root) if one.name not in ENTRY_POINTS) == []


@every_root
def test_no_module_has_a_name_of_the_standard_library(root: str) -> None:
    names = {part for one in modules(root) for part in one.parts if part not in ENTRY_POINTS}
    assert sorted(names & sys.stdlib_module_names - STANDARD_NAME_ALLOWED.keys()) == []


def test_every_exception_for_a_name_of_the_standard_library_is_needed() -> None:
    names = {part for root in PACKAGES for one in modules(root) for part in one.parts}
    assert STANDARD_NAME_ALLOWED.keys() <= names & sys.stdlib_module_names


@every_root
def test_no_two_classes_of_a_package_share_a_name(root: str) -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGES[root].rglob("*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(file.relative_to(PACKAGES[root])))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
