"""The ledger keeps steps, orders and fills whole, once, and digit for digit, or says why not."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alphapulse.domain.errors import InvalidRequest, StoreError
from alphapulse.domain.learning import Promotion
from alphapulse.domain.trading import Approved, Fill, Order, Purpose, Refused
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.ledger_reader import LedgerReader
from alphapulse.execution.ledger_tables import KnownOrder, Step

RUN = "00112233445566ff"
ETH = "ETH/USDT"
PRICES = {ETH: Decimal("2500.10"), "BTC/USDT": Decimal("60000.00")}
ENTRY = Order(ETH, 10, Decimal("0.5000"), "a" * 32, stop_price=Decimal("2480.10"))
EXIT = replace(ENTRY, quantity=Decimal("-1E+2"), purpose=Purpose.EXIT, stop_price=None)
TABLES = ("orders", "fills", "steps", "halts", "promotions")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite", RUN, busy_timeout_s=0.05)
    yield ledger
    ledger.close()


def a_step(event_ns: int) -> Step:
    return Step(
        event_ns=event_ns,
        cash=Decimal("9998.12345678"),
        equity=Decimal("10000.00"),
        peak=Decimal("10001"),
        drawdown=1 - Decimal(10_000) / Decimal(10_001),
        prices=PRICES,
    )


def a_fill(order: Order, quantity: str, price: str = "2500.20") -> Fill:
    money = {"quantity": Decimal(quantity), "price": Decimal(price), "fee": Decimal("1E-8")}
    return Fill(symbol=order.symbol, event_ns=110, order_id=order.id, **money)


def rows_of(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as db:
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def test_step_comes_back_digit_for_digit(ledger: Ledger) -> None:
    ledger.step(a_step(10))

    assert ledger.step_at(10) == ledger.step_at(99) == a_step(10)
    assert ledger.step_at(9) is None
    assert ledger.last_step() == 10


def test_orders_come_back_as_they_were_made_and_in_that_order(ledger: Ledger) -> None:
    flagged = replace(ENTRY, symbol="BTC/USDT", is_stored=False)

    ledger.step(a_step(10), [Approved(EXIT), Refused(flagged, "NoShort: no"), Approved(ENTRY)])

    assert ledger.orders_until(10) == [
        KnownOrder(EXIT, "sent", ""),
        KnownOrder(flagged, "refused", "NoShort: no"),
        KnownOrder(ENTRY, "sent", ""),
    ]
    assert ledger.orders_until(9) == ledger.orders_until(20, from_ns=11) == []
    assert [row["id"] for row in ledger.orders(9)] == [EXIT.id, flagged.id, ENTRY.id]


def test_order_is_on_its_way_until_it_has_an_answer(ledger: Ledger) -> None:
    later = replace(ENTRY, event_ns=20)
    ledger.step(a_step(10), [Approved(ENTRY), Approved(EXIT)])
    ledger.step(a_step(20), [Approved(later)])

    ledger.fill(EXIT.id, [a_fill(EXIT, "-1E+2")])

    assert [k.order for k in ledger.orders_until(20) if k.state == "sent"] == [ENTRY, later]


def test_fills_come_back_digit_for_digit(ledger: Ledger) -> None:
    fills = [a_fill(ENTRY, "0.2", "2500.20"), replace(a_fill(ENTRY, "0.30"), source="open")]
    ledger.step(a_step(10), [Approved(ENTRY)])

    ledger.fill(ENTRY.id, fills)

    assert ledger.fills_of(ENTRY.id) == fills
    assert [(k.state, k.reason) for k in ledger.orders_until(10)] == [("filled", "")]


def test_partly_filled_order_says_so(ledger: Ledger) -> None:
    ledger.step(a_step(10), [Approved(ENTRY)])

    ledger.fill(ENTRY.id, [a_fill(ENTRY, "0.2")])

    assert ledger.orders_until(10) == [KnownOrder(ENTRY, "filled", "filled 0.2 of 0.5000")]


def test_second_identical_call_changes_nothing(ledger: Ledger) -> None:
    def calls() -> list[bool]:
        return [
            ledger.step(a_step(10), [Approved(ENTRY), Approved(EXIT)], halt="drawdown"),
            ledger.fill(ENTRY.id, [a_fill(ENTRY, "0.5")]),
            ledger.unfilled(EXIT.id, "the source ended"),
            ledger.promote(PROMOTION),
        ]

    first = calls()
    before = rows_of(ledger.path)
    second = calls()

    assert first == [True] * 4
    assert second == [False] * 4
    assert rows_of(ledger.path) == before
    assert [len(before[table]) for table in TABLES] == [2, 1, 1, 1, 1]


def test_answer_to_an_order_is_final(ledger: Ledger) -> None:
    ledger.step(a_step(10), [Approved(ENTRY), Refused(EXIT, "NoShort: no")])
    ledger.unfilled(ENTRY.id, "the source ended")

    late = ledger.fill(ENTRY.id, [a_fill(ENTRY, "0.5")])
    refused = ledger.fill(EXIT.id, [a_fill(EXIT, "-1")])

    assert not late
    assert not refused
    assert ledger.fills_of(ENTRY.id) == ledger.fills_of(EXIT.id) == []


def test_step_is_there_whole_or_not_at_all(ledger: Ledger) -> None:
    twice = [Approved(ENTRY), Approved(ENTRY)]

    with pytest.raises(StoreError, match="UNIQUE"):
        ledger.step(a_step(10), twice, halt="drawdown")

    assert rows_of(ledger.path) == {table: [] for table in TABLES}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("inference_id", None),
        ("inference_id", ""),
        ("is_stored", 2),
        ("purpose", "wish"),
        ("state", "lost"),
        ("state", "refused"),  # without a reason
        ("quantity", b"0.5"),
        ("event_ns", "soon"),
    ],
)
def test_table_takes_no_order_that_cannot_be(ledger: Ledger, column: str, value: Any) -> None:
    ledger.step(a_step(10), [Approved(ENTRY)])

    with closing(sqlite3.connect(ledger.path)) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute(f"UPDATE orders SET {column} = ?", (value,))


def test_no_order_is_in_a_state_that_nobody_gives_it(ledger: Ledger) -> None:
    ledger.step(a_step(10), [Approved(ENTRY)])

    with closing(sqlite3.connect(ledger.path)) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE orders SET state = 'cancelled', reason = 'by hand'")


def test_fill_of_an_unknown_order_is_not_taken(ledger: Ledger) -> None:
    ledger.step(a_step(10))

    assert not ledger.fill("nobody", [a_fill(ENTRY, "0.5")])
    assert rows_of(ledger.path)["fills"] == []


PROMOTION = Promotion(
    run=RUN, model="cnn", event_ns=20, checkpoint="new", before="old", reason="won 21 to 1"
)


def test_promotions_come_back_oldest_first(ledger: Ledger) -> None:
    later = replace(PROMOTION, event_ns=30, checkpoint="newer", before="new")
    ledger.promote(later)
    ledger.promote(PROMOTION)

    assert ledger.promotions() == [PROMOTION, later]


def test_a_model_has_one_promotion_an_instant(ledger: Ledger) -> None:
    ledger.promote(PROMOTION)

    with pytest.raises(InvalidRequest, match="expected one an instant"):
        ledger.promote(replace(PROMOTION, checkpoint="another"))

    assert ledger.promotions() == [PROMOTION]


def test_promotion_of_another_run_is_not_taken(ledger: Ledger) -> None:
    with pytest.raises(StoreError, match="expected a promotion of run"):
        ledger.promote(replace(PROMOTION, run="another"))


def is_halted(ledger: Ledger, at_ns: int) -> bool:
    return any(halt.holds_at(at_ns) for halt in ledger.halts())


def test_halt_holds_from_its_instant_until_the_one_it_is_cleared_at(ledger: Ledger) -> None:
    begun = ledger.halt("by hand", 10)
    again = ledger.halt("once more", 20)
    cleared = ledger.clear_halt("seen", 30)

    assert (begun, again, cleared) == (True, False, True)
    assert [at for at in (9, 10, 29, 30, 99) if is_halted(ledger, at)] == [10, 29]
    assert [(h.reason, h.clear_reason) for h in ledger.halts()] == [("by hand", "seen")]


def test_halt_may_follow_a_cleared_one_at_the_same_instant(ledger: Ledger) -> None:
    ledger.halt("by hand", 10)
    ledger.clear_halt("seen", 10)

    assert not is_halted(ledger, 10)
    assert ledger.halt("by hand", 10)
    assert is_halted(ledger, 10)


def test_clearing_where_nothing_is_halted_says_so(ledger: Ledger) -> None:
    assert not ledger.clear_halt("seen", 10)


def test_views_for_people_are_plain_values_newest_last(ledger: Ledger) -> None:
    ledger.step(a_step(10), [Approved(ENTRY), Approved(EXIT)])
    ledger.step(a_step(20))
    ledger.fill(ENTRY.id, [a_fill(ENTRY, "0.2", "2500.1"), a_fill(ENTRY, "0.3", "2500.2")])
    ledger.fill(EXIT.id, [a_fill(EXIT, "-1E+2")])

    orders, fills, equity = ledger.orders(1), ledger.fills(2), ledger.equity(9)

    assert [(o["id"], o["quantity"], o["is_stored"]) for o in orders] == [(EXIT.id, "-100", True)]
    assert [(f["quantity"], f["price"], f["fee"]) for f in fills] == [
        ("0.3", "2500.2", "0.00000001"),
        ("-100", "2500.20", "0.00000001"),
    ]
    assert [e["event_ns"] for e in equity] == [10, 20]
    assert equity[0]["prices"] == {symbol: str(price) for symbol, price in PRICES.items()}


def test_counts_tell_orders_fills_and_stops(ledger: Ledger) -> None:
    stop = replace(EXIT, purpose=Purpose.STOP)
    ledger.step(a_step(10), [Approved(ENTRY), Approved(stop), Refused(EXIT, "no")], halt="deep")
    ledger.fill(stop.id, [a_fill(stop, "-40"), a_fill(stop, "-60")])

    assert ledger.counts() == {"orders": 2, "refused": 1, "stops": 1, "fills": 2, "halts": 1}


def test_another_process_reads_while_the_ledger_is_written(ledger: Ledger) -> None:
    ledger.step(a_step(10), [Approved(ENTRY)])
    code = """
        import sys
        from pathlib import Path
        from alphapulse.execution.ledger_reader import LedgerReader
        reader = LedgerReader(Path(sys.argv[1]))
        print(reader.last_step(), flush=True)
        sys.stdin.readline()
        print(reader.last_step(), flush=True)
    """

    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(ledger.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as reader:  # fmt: skip
        assert reader.stdin is not None
        assert reader.stdout is not None
        first = reader.stdout.readline()
        ledger.step(a_step(20))
        reader.stdin.write("\n")
        reader.stdin.flush()
        second = reader.stdout.readline()

    assert (first, second) == ("10\n", "20\n")


def test_reader_writes_nothing(ledger: Ledger) -> None:
    with closing(sqlite3.connect(f"{ledger.path.as_uri()}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader = LedgerReader(ledger.path)

    with reader._database() as db, pytest.raises(Exception, match="readonly"):
        db.exec_driver_sql("DELETE FROM steps")

    reader.close()


def test_reading_where_no_ledger_is_says_what_to_do(tmp_path: Path) -> None:
    reader = LedgerReader(tmp_path / "ledger.sqlite")

    with pytest.raises(StoreError, match="check that the folder exists"):
        reader.last_step()

    assert list(tmp_path.iterdir()) == []


def test_every_commit_is_synced(ledger: Ledger) -> None:
    with ledger._transaction() as db:
        modes = [
            db.exec_driver_sql(f"PRAGMA {m}").scalar() for m in ("synchronous", "journal_mode")
        ]

    assert modes == [2, "wal"]  # 2 is FULL


WRITER = """
    import sys, time
    from decimal import Decimal
    from pathlib import Path
    from alphapulse.domain.trading import Approved, Order
    from alphapulse.execution.ledger import Ledger
    from alphapulse.execution.ledger_tables import Step
    path, run, begin = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ledger, money = Ledger(path, run), Decimal("1.50")
    for at in range(begin, begin + 10_000):
        order = Order("ETH/USDT", at, Decimal("0.5"), "a" * 32)
        step = Step(event_ns=at, cash=money, equity=money, peak=money, drawdown=money, prices={})
        ledger.step(step, [Approved(order)])
        print(at, flush=True)
"""


def test_step_that_returned_survives_a_kill(tmp_path: Path) -> None:
    path, begin = tmp_path / "ledger.sqlite", 1
    for num_lines in (1, 7, 20):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(path), RUN, str(begin)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        returned = [int(writer.stdout.readline()) for _ in range(num_lines)][-1]
        os.kill(writer.pid, signal.SIGKILL)
        returned = max([returned, *map(int, writer.stdout.read().split())])
        writer.stdout.close()
        writer.wait()

        ledger = Ledger(path, RUN)
        last = ledger.last_step() or 0
        orders = ledger.orders_until(last)
        ledger.close()

        assert last in (returned, returned + 1)  # the one whose return was not told any more
        assert [k.order.event_ns for k in orders] == list(range(1, last + 1))
        begin = last + 1


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let no file of this process grow beyond what `path` and its log have now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_a_store_error_and_the_ledger_goes_on_afterwards(ledger: Ledger) -> None:
    def fill_up() -> None:
        for at in range(2, 500):
            ledger.step(a_step(at), [Approved(replace(ENTRY, event_ns=at))])

    ledger.step(a_step(1))
    with full_disk(ledger.path), pytest.raises(StoreError) as raised:
        fill_up()

    assert str(ledger.path) in str(raised.value)
    last = ledger.last_step() or 0
    assert len(ledger.orders_until(last)) == last - 1
    assert ledger.step(a_step(last + 1))


def test_locked_ledger_names_the_other_process(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreError, match="another process holds the ledger"):
            ledger.step(a_step(10))

    assert ledger.step(a_step(10))


def test_damaged_ledger_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 10)

    with pytest.raises(StoreError, match="restore a backup"):
        Ledger(path, RUN)


def test_ledger_of_another_run_is_not_opened(ledger: Ledger) -> None:
    with pytest.raises(StoreError, match=f"expected the one of run other, was {RUN}"):
        Ledger(ledger.path, "other")


def test_ledger_of_another_schema_is_not_opened(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("UPDATE meta SET value = '9' WHERE key = 'schema_version'")

    with pytest.raises(StoreError, match="expected schema version 1, was 9"):
        Ledger(ledger.path, RUN)
