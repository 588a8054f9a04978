"""Rows of sweeps that are on disk stay there; what a killed process left behind is no row."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.worker.sweeping.sweep_store import BlockFacts, SweepStore, rows_of
from backtestr_protocol.errors import NotFound


def facts(first: int, count: int) -> BlockFacts:
    return BlockFacts(first=first, count=count, rows=count, failed=0, seconds=0.25)


def frame(first: int, count: int) -> pl.DataFrame:
    return pl.DataFrame({"cell": range(first, first + count), "value": [float(one) for one in range(count)]})


def write(store: SweepStore, first: int, count: int, sweep_id: str = "s1") -> None:
    store.append(sweep_id, facts(first, count), frame(first, count))


def only_file(root: Path) -> Path:
    [path] = (root / "s1").glob("*.rows")
    return path


def test_blocks_of_several_processes_are_read_in_the_order_of_their_units(tmp_path: Path) -> None:
    one, other = SweepStore(tmp_path), SweepStore(tmp_path)
    write(one, 10, 10)
    write(other, 0, 10)
    write(one, 20, 5)
    blocks = SweepStore(tmp_path).blocks("s1")
    assert [(one.facts.first, one.facts.count) for one in blocks] == [(0, 10), (10, 10), (20, 5)]
    assert pl.concat(rows_of(blocks))["cell"].to_list() == list(range(25))
    assert [one.columns for one in rows_of(blocks, ["cell"])] == [["cell"]] * 3


def test_a_store_that_was_read_finds_what_was_written_since(tmp_path: Path) -> None:
    writer, reader = SweepStore(tmp_path), SweepStore(tmp_path)
    assert reader.blocks("s1") == []
    write(writer, 0, 10)
    assert len(reader.blocks("s1")) == 1
    write(writer, 10, 10)
    assert len(reader.blocks("s1")) == 2


def test_a_block_that_others_have_all_units_of_is_left_out(tmp_path: Path) -> None:
    write(SweepStore(tmp_path), 0, 10)
    write(SweepStore(tmp_path), 0, 10)
    write(SweepStore(tmp_path), 3, 4)
    assert [one.facts.count for one in SweepStore(tmp_path).blocks("s1")] == [10]


@settings(deadline=None, max_examples=50)
@given(cut=st.integers(1, 400))
def test_a_part_of_a_block_at_the_end_is_no_block(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    root = tmp_path_factory.mktemp("sweeps")
    store = SweepStore(root)
    write(store, 0, 10)
    whole = only_file(root).stat().st_size
    write(store, 10, 10)
    path = only_file(root)
    os.truncate(path, max(whole, path.stat().st_size - cut))
    reader = SweepStore(root)
    assert [one.facts.first for one in reader.blocks("s1")] == [0]
    write(SweepStore(root), 10, 10)  # by the process that computes it again
    assert [one.facts.first for one in reader.blocks("s1")] == [0, 10]


@pytest.mark.parametrize("at", [3, 15, 40, -5])
def test_a_damaged_block_and_those_behind_it_are_computed_again(tmp_path: Path, at: int) -> None:
    store = SweepStore(tmp_path)
    write(store, 0, 10)
    first = only_file(tmp_path).stat().st_size
    write(store, 10, 10)
    write(store, 20, 10)
    path = only_file(tmp_path)
    content = bytearray(path.read_bytes())
    place = first + at if at >= 0 else first + (first + at)
    content[place] ^= 0x40
    path.write_bytes(bytes(content))
    assert [one.facts.first for one in SweepStore(tmp_path).blocks("s1")] == [0]


def test_files_are_private_and_deleted_with_their_bytes_counted(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    write(store, 0, 10)
    write(store, 0, 10, "s2")
    path = only_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    size = path.stat().st_size
    assert store.delete("s1") == size
    assert store.blocks("s1") == []
    assert len(store.blocks("s2")) == 1
    assert store.delete("s1") == 0
    write(store, 0, 10)
    assert len(store.blocks("s1")) == 1


@pytest.mark.parametrize("name", ["../results", "", "a/b", "x" * 65])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        SweepStore(tmp_path).blocks(name)
