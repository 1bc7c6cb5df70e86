"""The soak counts what never came, knows a seam from a loss, and sees memory that grows."""

from __future__ import annotations

import numpy as np
import pytest

from alphapulse.domain.market import SECOND_NS, FeedGap, Trade
from experiments.benchmarks.scale import array_bytes
from experiments.benchmarks.soak import LATE, Account, growth, paced

T0 = 1_723_161_600 * SECOND_NS
ETH = "ETH/USDT"


def trade(trade_id: int, seconds: float, *, received_s: float | None = None) -> Trade:
    received_ns = T0 + int((seconds if received_s is None else received_s) * SECOND_NS)
    return Trade(ETH, T0 + int(seconds * SECOND_NS), received_ns, trade_id, 2_500.0, 1.0, True)


def account_of(*events: Trade | FeedGap, speed: float = 1.0) -> Account:
    account = Account(speed)
    for event in events:
        account.take(event)
    return account


def test_trade_that_never_came_is_lost_and_one_that_came_twice_is_a_fault_too() -> None:
    assert account_of(trade(1, 0), trade(2, 1), trade(5, 2)).lost == 2
    assert account_of(trade(1, 0), trade(2, 1), trade(2, 1)).lost == 1
    assert account_of(trade(1, 0), trade(2, 1)).lost == 0


def test_number_that_is_missing_after_a_long_pause_is_the_seam_of_a_lap() -> None:
    seam = account_of(trade(1, 0), trade(3, 30))
    loss = account_of(trade(1, 0), trade(3, 1))

    assert (seam.lost, seam.seams) == (0, 1)
    assert (loss.lost, loss.seams) == (1, 0)


def test_gaps_are_counted_by_what_they_say() -> None:
    account = account_of(
        FeedGap(ETH, T0, T0 - 1, LATE), FeedGap(ETH, T0, T0 - 1, "trades 5 to 6 did not arrive")
    )

    assert account.gaps == {"late": 1, "missing": 1}


def test_lag_is_told_against_the_earliest_arrival_at_that_speed() -> None:
    on_time = [trade(i, i, received_s=i / 10) for i in range(1, 500)]

    account = account_of(*on_time, trade(500, 500, received_s=50.25), speed=10.0)

    assert account.lags_s == [pytest.approx(0.25, abs=1e-3)]


def test_memory_after_the_warm_up_stands_against_the_last_minute() -> None:
    rss = [*np.linspace(50, 100, 300), *[100.0] * 60, *[107.0] * 60]

    assert growth(rss, 300) == (100.0, 107.0)
    assert growth([80.0], 300) == (80.0, 80.0)


def test_limits_in_event_time_grow_with_the_speed() -> None:
    assert (paced(20).watermark_ms, paced(20).stale_s) == (5_000, 100.0)


def test_memory_that_views_share_is_counted_once() -> None:
    whole = np.zeros(1_000)

    assert array_bytes({"a": whole, "views": [whole[:10], whole[5:]]}) == 8_000
    assert array_bytes([whole, np.zeros(10, np.uint8)]) == 8_010
