"""Store whole packages one by one in a naive layout: Parquet files, SQLite blobs or DuckDB.

.venv-bench/bin/python -m experiments.benchmarks.peers.history_packages LAYOUT PACKAGES FIRST STORE
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb  # the ones of .venv-bench
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.benchmarks.peers.peer import serve

ARRAYS = (
    *("bars_SFTC", "known_SFTC", "flags_SFT", "book_STB", "known_STB"),
    *("peers_KP", "awake_K", "account_A", "scale_S2"),
)
NAMES = ", ".join(ARRAYS)
ZSTD = pa.Codec("zstd", compression_level=1)
Package = tuple[str, bytes, list[bytes]]


def packages(folder: Path, first: int) -> list[Package]:
    """Return text, hidden states and arrays of every package from number `first` on."""
    texts = json.loads((folder / "said.json").read_text())[first:]
    hidden = json.loads((folder / "hidden.json").read_text())[first:]
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r")[first:] for name in ARRAYS]
    return [
        (text, bytes.fromhex(states), [array[i].tobytes() for array in arrays])
        for i, (text, states) in enumerate(zip(texts, hidden, strict=True))
    ]


def parquet_files(store: Path, given: list[Package]) -> None:
    """Write one file a package, as pandas and pyarrow write one."""
    for i, (text, hidden, arrays) in enumerate(given):
        columns = {"said": [text], "hidden": [hidden]}
        columns |= {name: [array] for name, array in zip(ARRAYS, arrays, strict=True)}
        pq.write_table(
            pa.table(columns),
            store / f"{i}.parquet",
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
        )


def read_parquet_files(store: Path) -> Iterator[Package]:
    """Yield the packages of the files."""
    for i in range(len(list(store.iterdir()))):
        (row,) = pq.read_table(store / f"{i}.parquet").to_pylist()
        yield row["said"], row["hidden"], [row[name] for name in ARRAYS]


def sqlite_blobs(store: Path, given: list[Package]) -> None:
    """Insert one row a package, each blob compressed, a transaction each: WAL, NORMAL."""
    db = sqlite3.connect(store / "packages.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    names = ", ".join(f"{name} BLOB" for name in ARRAYS)
    db.execute(f"CREATE TABLE p (id INTEGER PRIMARY KEY, said BLOB, hidden BLOB, {names})")
    insert = f"INSERT INTO p VALUES (?, ?, ?{', ?' * len(ARRAYS)})"
    for i, (text, hidden, arrays) in enumerate(given):
        packed = [ZSTD.compress(array).to_pybytes() for array in (text.encode(), *arrays)]
        db.execute(insert, (i, packed[0], hidden, *packed[1:]))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def read_sqlite_blobs(store: Path) -> Iterator[Package]:
    """Yield the packages of the table."""
    db = sqlite3.connect(store / "packages.sqlite")
    for text, hidden, *arrays in db.execute(f"SELECT said, hidden, {NAMES} FROM p ORDER BY id"):
        yield unpacked(text).decode(), hidden, [unpacked(array) for array in arrays]
    db.close()


def unpacked(content: bytes) -> bytes:
    """Return what was compressed."""
    return pa.input_stream(pa.BufferReader(content), compression="zstd").read()


def duckdb_rows(store: Path, given: list[Package]) -> None:
    """Insert one row a package, a transaction each."""
    db = duckdb.connect(str(store / "packages.duckdb"))
    names = ", ".join(f"{name} BLOB" for name in ARRAYS)
    db.execute(f"CREATE TABLE p (id INTEGER, said VARCHAR, hidden BLOB, {names})")
    insert = f"INSERT INTO p VALUES (?, ?, ?{', ?' * len(ARRAYS)})"
    for i, (text, hidden, arrays) in enumerate(given):
        db.execute(insert, [i, text, hidden, *arrays])
    db.close()


def read_duckdb_rows(store: Path) -> Iterator[Package]:
    """Yield the packages of the table."""
    db = duckdb.connect(str(store / "packages.duckdb"))
    rows = db.execute("SELECT * FROM p ORDER BY id")
    while (row := rows.fetchone()) is not None:
        yield row[1], row[2], list(row[3:])
    db.close()


Write = Callable[[Path, list[Package]], None]
LAYOUTS: dict[str, tuple[str, Write, Callable[[Path], Iterator[Package]]]] = {
    "parquet": (
        f"pyarrow {pa.__version__}, a zstd file a package",
        parquet_files,
        read_parquet_files,
    ),
    "sqlite": (f"SQLite {sqlite3.sqlite_version}, zstd-1 blobs", sqlite_blobs, read_sqlite_blobs),
    "duckdb": (f"DuckDB {duckdb.__version__}, a row a package", duckdb_rows, read_duckdb_rows),
}


def main() -> None:
    """Store all packages anew at each line of stdin; the folder keeps those of the newest run."""
    version, write, read = LAYOUTS[sys.argv[1]]
    given, store = packages(Path(sys.argv[2]), int(sys.argv[3])), Path(sys.argv[4])

    def run() -> None:
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir(parents=True)
        write(store, given)

    run()
    assert all(a == b for a, b in zip(read(store), given, strict=True)), "not what was stored"
    serve(version, run)


if __name__ == "__main__":
    main()
