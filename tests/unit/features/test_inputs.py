"""What a model is fed: whole or masked, blind to the future, rebuilt bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import StoredRow
from alphapulse.domain.inputs import CHANNEL, CHANNELS, IncompleteInput, ModelInput
from alphapulse.domain.market import BarFlag, Flags, Floats, Ints, Timeframe
from alphapulse.domain.windows import BookWindow, MarketWindow, Shown, StreamWindow
from alphapulse.features.inputs import (
    PeerTable,
    build,
    inverse_scale,
    pack,
    rebuild,
    relaid,
    require_same,
    seen_of,
    stored_rows,
)
from alphapulse.features.packages import StoredStreams
from alphapulse.features.registry import WARM_UP
from alphapulse.features.rows import BOOK_COLUMN, COLUMN, NUM_BINS

MakeWindow = Callable[..., MarketWindow]
ETH, BTC = "ETH/USDT", "BTC/USDT"
EVENT = 1_723_161_810 * 10**9  # 2024-08-09 00:03:30 UTC: all streams are whole
EARLY = 1_723_161_540 * 10**9  # 2024-08-08 23:59:00 UTC: the recording has run for 284 s
ACCOUNT = np.array([1.0, 0.5, 0.1, 0.0], np.float32)


def complete(window: MarketWindow, symbol: str = ETH, reference: str = BTC) -> ModelInput:
    built = attempt(window, symbol, reference)
    assert isinstance(built, ModelInput), built
    return built


def attempt(
    window: MarketWindow, symbol: str = ETH, reference: str = BTC
) -> ModelInput | IncompleteInput:
    return build(window, symbol=symbol, reference=reference, peers=PeerTable(), account_A=ACCOUNT)


def with_stream(window: MarketWindow, stream: StreamWindow) -> MarketWindow:
    return replace(window, streams={**window.streams, (stream.symbol, stream.timeframe): stream})


def with_flags(
    window: MarketWindow, stream: StreamWindow | BookWindow, flags_T: Flags
) -> MarketWindow:
    flagged = replace(stream, flags_T=flags_T)
    if isinstance(flagged, StreamWindow):
        return with_stream(window, flagged)
    return replace(window, books=dict(window.books) | {flagged.symbol: flagged})


def without_bar(window: MarketWindow, timeframe: Timeframe, *, from_end: int) -> MarketWindow:
    stream = window.streams[ETH, timeframe]
    kept = np.arange(len(stream.open_ns_T)) != len(stream.open_ns_T) - from_end
    return with_stream(
        window,
        replace(
            stream,
            open_ns_T=stream.open_ns_T[kept],
            rows_TC=stream.rows_TC[kept],
            flags_T=stream.flags_T[kept],
        ),
    )


def stored(window: MarketWindow) -> dict[tuple[str, str], tuple[Ints, Flags, Floats]]:
    by_stream: dict[tuple[str, str], list[StoredRow]] = {}
    for row in stored_rows(window, newer_than={}):
        by_stream.setdefault((row.symbol, row.stream), []).append(row)
    return {
        key: (
            np.array([row.ts_ns for row in rows]),
            np.array([row.flags for row in rows], np.uint8),
            np.array([row.values_C for row in rows]),
        )
        for key, rows in by_stream.items()
    }


def test_there_are_32_different_channels() -> None:
    assert len(CHANNELS) == len(set(CHANNELS)) == 32


def test_whole_window_gives_a_finite_input_without_substitutions(make_window: MakeWindow) -> None:
    built = complete(make_window(EVENT))

    assert built.substitutions == ()
    assert all(np.isfinite(a).all() for a in (built.bars_SFTC, built.book_STB, built.scale_S2))
    assert (built.flags_SFT & BarFlag.VALID).all()
    assert (built.flags_SFT[:, 1:, -1] & BarFlag.FORMING).all()
    assert not (built.flags_SFT[:, :, :-1] & BarFlag.FORMING).any()
    assert np.array_equal(built.account_A, ACCOUNT)
    assert built.price == make_window(EVENT).close(ETH)


def test_no_channel_but_the_free_ones_is_idle_or_out_of_order_one(make_window: MakeWindow) -> None:
    built = complete(make_window(EVENT))

    spread_C = built.bars_SFTC[:, 1:].reshape(-1, 32).std(axis=0)

    idle = [name for name, spread in zip(CHANNELS, spread_C, strict=True) if spread < 1e-4]
    assert idle == ["l5_leg", "own_1", "own_2"]  # no new leg of the fifth level in 300 bars
    assert np.abs(built.bars_SFTC).max() <= 20


def test_what_is_not_known_is_zero_and_marked(make_window: MakeWindow) -> None:
    built = complete(make_window(EVENT))

    assert set(np.unique(built.known_SFTC).tolist()) == {0, 1}
    assert not built.bars_SFTC[built.known_SFTC == 0].any()
    assert not built.known_SFTC[..., CHANNEL["own_1"] :].any()
    assert built.known_SFTC[..., : CHANNEL["l1_from_high"]].all()
    # 800 days hold few pivots of the fifth level: before the first there is none
    assert built.known_SFTC[:, 3, :, CHANNEL["l1_leg"]].all()
    assert not built.known_SFTC[:, 3, 0, CHANNEL["l5_leg"]].any()


@pytest.mark.parametrize("event_ns", [EVENT, EVENT - 210 * 10**9, EVENT - 209 * 10**9])
def test_future_rows_leave_the_input_untouched(make_window: MakeWindow, event_ns: int) -> None:
    nothing, future, poison = (
        complete(make_window(event_ns, after=after)) for after in ("nothing", "future", "poison")
    )

    assert nothing.content_hash == future.content_hash == poison.content_hash


def test_a_traded_tick_changes_the_input(make_window: MakeWindow) -> None:
    assert (
        complete(make_window(EVENT)).content_hash
        != complete(make_window(EVENT + 10**9)).content_hash
    )


def test_scale_is_low_and_high_of_300_days_with_the_forming_one(make_window: MakeWindow) -> None:
    window = make_window(EVENT)
    days = window.streams[BTC, Timeframe.D1]
    assert days.forming_C is not None
    rows_TC = np.vstack([days.rows_TC[-299:], days.forming_C])

    built = complete(window)

    low, high = rows_TC[:, COLUMN["low"]].min(), rows_TC[:, COLUMN["high"]].max()
    assert built.scale_S2[1].tolist() == [low, high]
    assert built.bars_SFTC[1, 3, :, CHANNEL["low"]].min() == 0
    assert built.bars_SFTC[1, 3, :, CHANNEL["high"]].max() == 1


def test_inverse_scale_gives_every_price_back_exactly(make_window: MakeWindow) -> None:
    window = make_window(EVENT)

    built = complete(window)

    for s, symbol in enumerate((ETH, BTC)):
        for f, timeframe in enumerate(Timeframe):
            closed_T = built.flags_SFT[s, f] & BarFlag.FORMING == 0
            scaled = built.bars_SFTC[s, f, closed_T, :4]
            prices = inverse_scale(scaled, built.scale_S2[s], tick_size=0.01)
            rows_TC = window.streams[symbol, timeframe].rows_TC[-len(scaled) :]
            assert np.array_equal(prices, rows_TC[:, :4])


def test_scale_too_wide_for_ticks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a scale of at most 8388608 ticks, was 9000000"):
        inverse_scale(np.zeros(1), np.array([0.0, 90_000.0]), tick_size=0.01)


def test_prices_ten_times_as_high_give_the_same_input(make_window: MakeWindow) -> None:
    once, tenfold = complete(make_window(EVENT)), complete(make_window(EVENT, factor=10.0))

    np.testing.assert_allclose(tenfold.bars_SFTC, once.bars_SFTC, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tenfold.book_STB, once.book_STB, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tenfold.scale_S2, once.scale_S2 * 10)


def test_swapped_symbols_swap_the_axis(make_window: MakeWindow) -> None:
    window = make_window(EVENT)

    first, second = complete(window), complete(window, BTC, ETH)

    assert np.array_equal(first.bars_SFTC[::-1], second.bars_SFTC)
    assert np.array_equal(first.book_STB[::-1], second.book_STB)
    assert np.array_equal(first.scale_S2[::-1], second.scale_S2)
    assert first.content_hash != second.content_hash


def test_missing_closed_bar_is_named(make_window: MakeWindow) -> None:
    window = without_bar(make_window(EVENT), Timeframe.M1, from_end=3)

    refused = attempt(window)

    assert refused == IncompleteInput(
        ETH,
        EVENT,
        "missing_bars",
        ("ETH/USDT 1m: expected 299 closed bars, was 298; first missing at 2024-08-09T00:00:00Z",),
    )


def test_absent_streams_are_named_one_by_one(make_window: MakeWindow) -> None:
    window = make_window(EVENT)
    hourless = {key: s for key, s in window.streams.items() if key[1] is not Timeframe.H1}

    refused = attempt(replace(window, streams=hourless))

    assert isinstance(refused, IncompleteInput)
    assert [m.split(";")[0] for m in refused.missing] == [
        "ETH/USDT 1h: expected 299 closed bars, was 0",
        "BTC/USDT 1h: expected 299 closed bars, was 0",
    ]


@pytest.mark.parametrize("after", ["nothing", "future"])
def test_stale_forming_bar_is_no_forming_bar(make_window: MakeWindow, after: str) -> None:
    window = make_window(EVENT, after=after)
    stale = replace(window.streams[ETH, Timeframe.D1], forming_open_ns=EVENT - 10**15)

    refused = attempt(with_stream(window, stale))

    assert isinstance(refused, IncompleteInput)
    assert refused.missing == (
        "ETH/USDT 1d: expected the forming bar of 2024-08-09T00:00:00Z, was none",
    )


def test_bars_without_all_indicators_are_missing(make_window: MakeWindow) -> None:
    window = make_window(EVENT)
    stream = window.streams[ETH, Timeframe.H1]
    flags_T = stream.flags_T.copy()
    flags_T[-299:-290] |= np.uint8(BarFlag.WARMUP)

    refused = attempt(with_stream(window, replace(stream, flags_T=flags_T)))

    assert isinstance(refused, IncompleteInput)
    assert "expected 299 closed bars, was 290 and 9 without all indicators" in refused.missing[0]


def test_feed_that_is_down_gives_no_input(make_window: MakeWindow) -> None:
    refused = attempt(replace(make_window(EVENT), down=frozenset({BTC})))

    assert isinstance(refused, IncompleteInput)
    assert refused.reason == "feed_down"
    assert refused.missing == ("BTC/USDT: expected a live feed, was down at 2024-08-09T00:03:30Z",)


def test_scale_without_height_gives_no_input(make_window: MakeWindow) -> None:
    window = make_window(EVENT)
    stream = window.streams[ETH, Timeframe.D1]
    assert stream.forming_C is not None
    rows_TC, forming_C = stream.rows_TC.copy(), stream.forming_C.copy()
    for row in (rows_TC.T, forming_C):
        row[COLUMN["low"]] = row[COLUMN["high"]] = 2500.0

    refused = attempt(with_stream(window, replace(stream, rows_TC=rows_TC, forming_C=forming_C)))

    assert isinstance(refused, IncompleteInput)
    assert refused.reason == "flat_scale"


def test_seconds_before_the_recording_are_masked_and_said(make_window: MakeWindow) -> None:
    built = complete(make_window(EARLY))

    assert (
        "ETH/USDT 1s: 284 of 300 seconds; 1m is the lowest whole timeframe" in built.substitutions
    )
    assert "BTC/USDT book: 285 of 300 seconds; the rest is masked" in built.substitutions
    assert not built.flags_SFT[:, 0, :16].any()
    assert not built.bars_SFTC[:, 0, :16].any()
    assert (built.flags_SFT[:, 0, 16 : 16 + WARM_UP - 1] & BarFlag.WARMUP).all()
    assert not (built.flags_SFT[:, 0, 16 + WARM_UP - 1 :] & BarFlag.WARMUP).any()
    assert built.bars_SFTC[:, 0, 16:, CHANNEL["close"]].all()
    for name, num_warming in (
        ("log_return", 60),
        ("rsi", 70),
        ("natr", 70),
        ("from_price", 70),
        ("macd_hist", 173),
    ):
        known_ST = built.known_SFTC[:, 0, :, CHANNEL[name]]
        assert not known_ST[:, : 16 + num_warming].any(), name
        assert known_ST[:, 16 + num_warming :].all(), name
    assert not built.known_STB[:, :15].any()
    assert np.isfinite(built.bars_SFTC).all()


def test_without_seconds_or_books_the_input_is_whole_but_masked(make_window: MakeWindow) -> None:
    window = make_window(EVENT)
    slower = {key: s for key, s in window.streams.items() if key[1] is not Timeframe.S1}

    built = complete(replace(window, streams=slower, books={}))

    assert not built.known_STB.any()
    assert not built.book_STB.any()
    assert not built.bars_SFTC[:, 0].any()
    assert len(built.substitutions) == 4


def test_rows_without_the_valid_flag_are_not_shown(make_window: MakeWindow) -> None:
    window = without_bar(make_window(EVENT), Timeframe.S1, from_end=5)
    stream = make_window(EVENT).streams[ETH, Timeframe.S1]
    rows_TC, flags_T = stream.rows_TC.copy(), stream.flags_T.copy()
    rows_TC[-5], flags_T[-5] = 1e9, 0

    garbage = complete(with_stream(window, replace(stream, rows_TC=rows_TC, flags_T=flags_T)))

    assert garbage.content_hash == complete(window).content_hash


def test_unknown_book_values_are_zero_and_marked(make_window: MakeWindow) -> None:
    window = make_window(EVENT)

    built = complete(window)

    rows_TB = window.books[ETH].rows_TC[-300:]
    known_TB = ~np.isnan(rows_TB)
    # sizes are told in units of the row's own bins, and some rows know none
    without_T = np.isnan(rows_TB[:, : 2 * NUM_BINS]).all(axis=1)
    for name in ("bought", "sold"):
        known_TB[without_T, BOOK_COLUMN[name]] = False
    assert 0 < without_T.sum() < 300
    assert np.array_equal(built.known_STB[0].astype(bool), known_TB)
    assert not built.book_STB[built.known_STB == 0].any()


@pytest.mark.parametrize("event_ns", [EVENT, EARLY])
@pytest.mark.parametrize("after", ["nothing", "future"])
def test_rebuilt_input_is_the_same_bit_for_bit(
    make_window: MakeWindow, event_ns: int, after: str
) -> None:
    window = make_window(event_ns, after=after)
    built = complete(window)

    again = rebuild(pack(window, built), stored(window))

    assert again.content_hash == built.content_hash
    assert again.price == built.price
    assert again.substitutions == built.substitutions
    for name in built.spec.shapes():
        assert getattr(again, name).tobytes() == getattr(built, name).tobytes()


@pytest.mark.parametrize("missed", [(), (3, 4, 250)])  # seconds whose trades were missed
def test_what_models_see_of_rows_made_once_gives_the_same_input(
    make_window: MakeWindow, missed: tuple[int, ...]
) -> None:
    window = make_window(EVENT)
    for stream in (window.streams[ETH, Timeframe.S1], window.books[ETH]):
        flags_T = stream.flags_T.copy()
        flags_T[[len(flags_T) - 300 + t for t in missed]] |= np.uint8(BarFlag.INCOMPLETE)
        window = with_flags(window, stream, flags_T)
    rows = {
        key: (ts, flags, np.ascontiguousarray(r)) for key, (ts, flags, r) in stored(window).items()
    }
    seen = {key: (ts_ns_T, seen_of(key[1], rows_TC)) for key, (ts_ns_T, _, rows_TC) in rows.items()}
    built = complete(window)

    again = relaid(pack(window, built), rows, seen=seen)

    assert again.content_hash == built.content_hash
    assert built.known_STB[0].any(axis=1).sum() == 300 - len(missed)
    shifted = {key: (ts, Shown(v[::-1], k[::-1], p[::-1])) for key, (ts, (v, k, p)) in seen.items()}
    foreign = relaid(pack(window, built), rows, seen=shifted)
    with pytest.raises(StoreError, match="expected hash"):
        require_same(pack(window, built), foreign)


def test_rebuild_without_a_row_says_which_stream(make_window: MakeWindow) -> None:
    window = make_window(EVENT)
    rows: StoredStreams = {key: r for key, r in stored(window).items() if key != (BTC, "1h")}

    with pytest.raises(StoreError, match="BTC/USDT 1h: expected 299 stored rows, was 0"):
        rebuild(pack(window, complete(window)), rows)


def test_rebuild_from_a_changed_row_is_refused(make_window: MakeWindow) -> None:
    window = make_window(EVENT)
    package, rows = pack(window, complete(window)), stored(window)
    rows[ETH, "1m"][2][-1, COLUMN["close"]] += 0.01

    with pytest.raises(StoreError, match="expected hash"):
        rebuild(package, rows)


def test_only_rows_not_handed_out_before_are_stored(make_window: MakeWindow) -> None:
    before, after = make_window(EVENT), make_window(EVENT + 31 * 10**9)
    newest = {key: int(ts[-1]) for key, (ts, _, _) in stored(before).items()}

    fresh = stored_rows(after, newer_than=newest)

    counts = {key: sum((r.symbol, r.stream) == key for r in fresh) for key in newest}
    assert {key[1]: n for key, n in counts.items()} == {
        "1s": 31,
        "1m": 1,
        "1h": 0,
        "1d": 0,
        "book": 31,
    }
    assert len(fresh) == 126
