"""Thousands of damaged Parquet and Arrow files are read in child processes: each is read or refused.

    make chaos-tables ARGS='--files 3000 --seed 1'

Files are cut, have wrong lengths, zeroed and exchanged parts, and flipped bits, most of them in the metadata. They are
read as imports read them. It prints how many files were read and refused, and how many ended their process.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
from collections import Counter
from pathlib import Path

import psutil

from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.worker.child_tasks import ChildTasks
from backtestr_protocol.errors import DataError
from backtestr_protocol.import_messages import ImportMarketData


def contents() -> list[bytes]:
    """Return good files of every kind."""
    frame = synthetic_bars("1m", 2_000).to_frame()
    found = []
    for options in (
        {},
        {"compression": "snappy", "row_group_size": 300},
        {"compression": "zstd", "use_pyarrow": False},
    ):
        file = io.BytesIO()
        frame.write_parquet(file, **options)  # type: ignore[arg-type]  # options of several types
        found.append(file.getvalue())
    for write in (frame.write_ipc, frame.write_ipc_stream):
        file = io.BytesIO()
        write(file)
        found.append(file.getvalue())
    return found


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a copy with one kind of damage."""
    copy = bytearray(content)
    end = len(copy) if chance.random() < 0.3 else 1_500
    match chance.randrange(6):
        case 0:
            del copy[chance.randrange(8, len(copy)) :]
        case 1:
            copy[-8:-4] = chance.randbytes(4) if chance.random() < 0.5 else b"\xff\xff\xff\x7f"
        case 2:
            begin = chance.randrange(len(copy))
            copy[begin : begin + chance.randrange(1, 500)] = bytes(chance.randrange(1, 500))
        case 3:
            copy[8:-8] = chance.randbytes(len(copy) - 16)
        case _:
            for _ in range(chance.randrange(1, 8)):
                at = 8 + chance.randrange(end - 8)
                copy[-at if chance.random() < 0.7 else at - 1] ^= 1 << chance.randrange(8)
    return bytes(copy)


def main() -> None:
    """Read the files, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    good = contents()
    tasks = ChildTasks(10.0, 1 << 30)
    counts: Counter[str] = Counter()
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars"
        for _ in range(given.files):
            path.write_bytes(damaged(chance.choice(good), chance))
            try:
                tasks.read_file(ImportMarketData(path=str(path), symbol="X", timeframe="1m"))
                counts["read"] += 1
            except DataError as error:
                counts["its process was lost" if "was lost" in error.message else "refused"] += 1
    grown = (psutil.Process().memory_info().rss - before) >> 20
    print(f"{given.files} files: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    print(f"the reader's parent lives, and has {grown} MiB more memory; children left: {psutil.Process().children()}")
    assert not psutil.Process().children()


if __name__ == "__main__":
    main()
