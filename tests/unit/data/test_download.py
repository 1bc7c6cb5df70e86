"""Keep a venue's candles as a recording: bit for bit, whole or not at all, or going on."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapulse import client
from alphapulse.config import Feed
from alphapulse.data.download import BARS, Downloaded, download_candles, download_span
from alphapulse.data.history import read_candles, write_candles
from alphapulse.data.live import Live
from alphapulse.data.recordings import list_recordings
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import (
    InvalidRecording,
    InvalidRequest,
    NoData,
    StoreError,
    Unavailable,
)
from alphapulse.domain.market import SECOND_NS, BarSeries, Instrument, Timeframe
from tests.exchange.recording import Recording
from tests.exchange.server import Exchange, opened

INSTRUMENTS = (Instrument("ETH/USDT", 0.01, 1.0), Instrument("BTC/USDT", 0.01, 10.0))


class RecordedVenue:
    """Answers as ccxt would, from recorded candles, and checks what it is asked."""

    id = "recorded"

    def __init__(self, recording: Path, *, failing: str = "") -> None:
        self.series = {
            (i.symbol, t.value): read_candles(
                recording / f"candles-{t}-{i.venue_symbol}.parquet", i, t
            )
            for i in INSTRUMENTS
            for t in BARS
        }
        self.failing = failing
        self.is_closed = False

    async def fetch_time(self) -> int:
        return 1_723_161_240_000  # 2024-08-08T23:54:00Z

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str, *, since: int, limit: int
    ) -> list[list[float]]:
        import ccxt

        assert 0 < limit <= 1000
        if symbol == self.failing:
            raise ccxt.BadSymbol(symbol)
        series = self.series[symbol, timeframe]
        first = int(np.searchsorted(series.open_ns_T, since * 1_000_000))
        opens = series.open_ns_T[first : first + limit] // 1_000_000
        rows = series.ohlcv_TC[first : first + limit].tolist()
        return [[int(o), *row] for o, row in zip(opens, rows, strict=True)]

    async def close(self) -> None:
        self.is_closed = True


def live(venue: Any) -> Live:
    return Live("recorded", INSTRUMENTS, Feed(reconnect_s=0.0), exchange=lambda: venue)


def test_download_keeps_every_closed_candle_and_is_a_recording(
    recordings: Path, tmp_path: Path
) -> None:
    venue = RecordedVenue(recordings)

    folder = asyncio.run(download_candles(live(venue), INSTRUMENTS, tmp_path / "candles"))

    kept = read_candles(folder / "candles-1m-ETHUSDT.parquet", INSTRUMENTS[0], Timeframe.M1)
    truth = venue.series["ETH/USDT", "1m"].until(1_723_161_240_000_000_000)
    assert np.array_equal(kept.open_ns_T, truth.open_ns_T)
    assert np.array_equal(kept.ohlcv_TC, truth.ohlcv_TC)
    assert not Tape(folder, INSTRUMENTS).has_ticks
    assert venue.is_closed


def test_download_that_fails_half_way_leaves_no_recording(recordings: Path, tmp_path: Path) -> None:
    venue = RecordedVenue(recordings, failing="BTC/USDT")

    with pytest.raises(Unavailable, match="BTC/USDT"):
        asyncio.run(download_candles(live(venue), INSTRUMENTS, tmp_path / "candles"))

    assert not (tmp_path / "candles").exists()


def test_written_candles_read_back_bit_for_bit(recordings: Path, tmp_path: Path) -> None:
    series = read_candles(recordings / "candles-1h-BTCUSDT.parquet", INSTRUMENTS[1], Timeframe.H1)

    write_candles(tmp_path / "x.parquet", series)

    again = read_candles(tmp_path / "x.parquet", INSTRUMENTS[1], Timeframe.H1)
    assert again.ohlcv_TC.tobytes() == series.ohlcv_TC.tobytes()


MINUTE_NS = Timeframe.M1.ns
NOW_NS = 1_723_161_240_000_000_000  # 2024-08-08T23:54:00Z
DAY_AGO_NS = NOW_NS - 1_440 * MINUTE_NS
NAME = "candles-1m-ETHUSDT.parquet"


class PagedVenue:
    """Answers as ccxt would, a page of `bars` at a time, and checks what it is asked.

    Args:
        bars: what it has; the newest may still be forming.
        now_ns: its clock.
        page: most bars it gives at once.
        is_windowed: whether an answer reaches no further than `page` opens, empty or not.
        down_after: number of pages it gives before it does not answer any more.
        error: what it raises then.
    """

    id = "paged"

    def __init__(
        self,
        bars: BarSeries,
        *,
        now_ns: int = NOW_NS + 30_000_000_000,
        page: int = 1_000,
        is_windowed: bool = False,
        down_after: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.bars = bars
        self.now_ns = now_ns
        self.page = page
        self.is_windowed = is_windowed
        self.down_after = down_after
        self.error = error
        self.has = {"fetchTime": True}
        self.asked: list[int] = []
        self.is_closed = False

    async def fetch_time(self) -> int:
        return self.now_ns // 1_000_000

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str, *, since: int, limit: int
    ) -> list[list[Any]]:
        import ccxt

        since_ns = since * 1_000_000
        assert (symbol, timeframe) == (self.bars.symbol, self.bars.timeframe.value)
        assert 0 < limit <= 1_000
        assert since_ns % self.bars.timeframe.ns == 0
        assert since_ns < self.now_ns
        if self.down_after is not None and len(self.asked) >= self.down_after:
            raise self.error or ccxt.ExchangeNotAvailable("503")
        self.asked.append(since_ns)
        opens_T = self.bars.open_ns_T
        page = min(limit, self.page)
        chosen_T = opens_T >= since_ns
        if self.is_windowed:
            chosen_T &= opens_T < since_ns + page * self.bars.timeframe.ns
        opens = opens_T[chosen_T][:page] // 1_000_000
        rows = self.bars.ohlcv_TC[chosen_T][:page].tolist()
        return [[int(o), *row] for o, row in zip(opens, rows, strict=True)]

    async def close(self) -> None:
        self.is_closed = True


def bring(venue: Any, folder: Path, **asked: Any) -> Downloaded:
    """Download ETH/USDT minutes of the venue's last day, or of the span that is asked for."""
    span = {"since_ns": DAY_AGO_NS} | asked
    source = Live("paged", (), Feed(reconnect_s=0.0), exchange=lambda: venue)
    try:
        return asyncio.run(download_span(source, "ETH/USDT", Timeframe.M1, folder, **span))
    finally:
        assert venue.is_closed


@pytest.fixture
def minutes(recordings: Path) -> BarSeries:
    """Return every recorded minute of ETH/USDT."""
    return read_candles(recordings / NAME, INSTRUMENTS[0], Timeframe.M1)


def between(series: BarSeries, since_ns: int, until_ns: int) -> BarSeries:
    """Return the bars that open from `since_ns` on and before `until_ns`."""
    return only(series, (series.open_ns_T >= since_ns) & (series.open_ns_T < until_ns))


def only(series: BarSeries, chosen_T: Any) -> BarSeries:
    """Return the chosen bars."""
    return BarSeries(
        series.symbol, series.timeframe, series.open_ns_T[chosen_T], series.ohlcv_TC[chosen_T]
    )


def without(series: BarSeries, since_ns: int, until_ns: int) -> BarSeries:
    """Return the bars but those between."""
    return only(series, (series.open_ns_T < since_ns) | (series.open_ns_T >= until_ns))


def assert_holds(file: Path, truth: BarSeries) -> None:
    """Check that the file holds these bars bit for bit, each once, in order, and nothing else."""
    kept = read_candles(file, INSTRUMENTS[0], truth.timeframe)
    assert kept.open_ns_T.tolist() == truth.open_ns_T.tolist()
    assert kept.ohlcv_TC.tobytes() == truth.ohlcv_TC.tobytes()


@pytest.mark.parametrize("page", [1_000, 300, 97])
@pytest.mark.parametrize("is_windowed", [False, True])
def test_no_bar_is_lost_or_doubled_at_the_seams_of_pages(
    minutes: BarSeries, tmp_path: Path, page: int, is_windowed: bool
) -> None:
    venue = PagedVenue(minutes, page=page, is_windowed=is_windowed)

    done = bring(venue, tmp_path)

    truth = between(minutes, DAY_AGO_NS, NOW_NS)
    assert_holds(tmp_path / NAME, truth)
    assert (done.file, done.rows, done.new_rows) == (tmp_path / NAME, 1_440, 1_440)
    assert (done.gaps, done.missing) == ((), 0)
    assert (done.first_ns, done.last_ns) == (DAY_AGO_NS, NOW_NS - MINUTE_NS)
    assert len(venue.asked) == -(-1_440 // page)


def test_pages_that_overlap_double_no_bar(minutes: BarSeries, tmp_path: Path) -> None:
    class Overlapping(PagedVenue):
        async def fetch_ohlcv(self, *args: Any, since: int, limit: int) -> list[list[Any]]:
            early = max(since - 120_000, DAY_AGO_NS // 1_000_000)
            rows = await super().fetch_ohlcv(*args, since=early, limit=min(limit + 2, 1_000))
            return [*rows[::-1], rows[0]]

    done = bring(Overlapping(minutes, page=100), tmp_path)

    assert_holds(tmp_path / NAME, between(minutes, DAY_AGO_NS, NOW_NS))
    assert (done.rows, done.missing) == (1_440, 0)


def test_bar_that_is_still_forming_is_not_kept(minutes: BarSeries, tmp_path: Path) -> None:
    first = bring(PagedVenue(minutes, now_ns=NOW_NS - 1_000_000), tmp_path)
    assert_holds(tmp_path / NAME, between(minutes, DAY_AGO_NS, NOW_NS - MINUTE_NS))

    second = bring(PagedVenue(minutes, now_ns=NOW_NS), tmp_path)  # the minute has just closed

    assert_holds(tmp_path / NAME, between(minutes, DAY_AGO_NS, NOW_NS))
    assert (first.rows, second.rows, second.new_rows) == (1_439, 1_440, 1)


def test_only_whole_bars_inside_the_span_are_kept(minutes: BarSeries, tmp_path: Path) -> None:
    since_ns, until_ns = DAY_AGO_NS + 1, DAY_AGO_NS + 10 * MINUTE_NS + 59_000_000_000

    done = bring(PagedVenue(minutes), tmp_path, since_ns=since_ns, until_ns=until_ns)

    truth = between(minutes, DAY_AGO_NS + MINUTE_NS, DAY_AGO_NS + 10 * MINUTE_NS)
    assert_holds(tmp_path / NAME, truth)
    assert (done.rows, done.missing) == (9, 0)


def test_end_in_the_future_is_the_present_of_the_venue(minutes: BarSeries, tmp_path: Path) -> None:
    done = bring(PagedVenue(minutes), tmp_path, until_ns=NOW_NS + 10**15)

    assert (done.rows, done.missing) == (1_440, 0)


@pytest.mark.parametrize("down_after", [1, 3, 14])
def test_interrupted_download_goes_on_to_the_same_file(
    minutes: BarSeries, tmp_path: Path, down_after: int
) -> None:
    bring(PagedVenue(minutes, page=100), tmp_path / "whole")
    with pytest.raises(NoData, match="the same command goes on") as end:
        bring(PagedVenue(minutes, page=100, down_after=down_after), tmp_path / "again")
    kept_until_ns = DAY_AGO_NS + down_after * 100 * MINUTE_NS
    assert_holds(tmp_path / "again" / NAME, between(minutes, DAY_AGO_NS, kept_until_ns))

    venue = PagedVenue(minutes, page=100)
    done = bring(venue, tmp_path / "again")

    assert end.value.exit_code == 3
    assert venue.asked[0] == kept_until_ns
    assert done.new_rows == 1_440 - 100 * down_after
    assert (tmp_path / "again" / NAME).read_bytes() == (tmp_path / "whole" / NAME).read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), TypeError()])
def test_what_came_before_an_interrupt_is_kept(
    minutes: BarSeries, tmp_path: Path, error: BaseException
) -> None:
    venue = PagedVenue(minutes, page=100, down_after=2, error=error)

    with pytest.raises(type(error)):
        bring(venue, tmp_path)

    assert_holds(tmp_path / NAME, between(minutes, DAY_AGO_NS, DAY_AGO_NS + 200 * MINUTE_NS))
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_long_download_is_on_disk_in_segments(minutes: BarSeries, tmp_path: Path) -> None:
    since_ns = NOW_NS - 19_000 * MINUTE_NS
    seen: dict[int, int] = {}
    stream = INSTRUMENTS[0], Timeframe.M1

    def look(done: int, total: int) -> None:
        assert total == 21_000
        file = tmp_path / NAME
        seen[done] = len(read_candles(file, *stream)) if file.is_file() else 0

    now_ns = NOW_NS + 2_000 * MINUTE_NS
    done = bring(PagedVenue(minutes, now_ns=now_ns), tmp_path, since_ns=since_ns, tell=look)

    assert (seen[0], seen[19_000], seen[20_000], seen[21_000]) == (0, 0, 20_000, 20_000)
    assert list(seen) == [n * 1_000 for n in range(22)]
    assert done.rows == 21_000


def test_nothing_is_asked_for_twice(minutes: BarSeries, tmp_path: Path) -> None:
    bring(PagedVenue(minutes), tmp_path)
    before = (tmp_path / NAME).read_bytes()
    venue = PagedVenue(minutes)

    done = bring(venue, tmp_path)

    assert (venue.asked, done.new_rows, done.rows) == ([], 0, 1_440)
    assert (tmp_path / NAME).read_bytes() == before


def test_earlier_start_brings_what_is_before_the_file(minutes: BarSeries, tmp_path: Path) -> None:
    bring(PagedVenue(minutes), tmp_path, since_ns=NOW_NS - 10 * MINUTE_NS)
    venue = PagedVenue(minutes)

    done = bring(venue, tmp_path)

    assert_holds(tmp_path / NAME, between(minutes, DAY_AGO_NS, NOW_NS))
    assert (venue.asked, done.new_rows) == ([DAY_AGO_NS, DAY_AGO_NS + 1_000 * MINUTE_NS], 1_430)


@pytest.mark.parametrize("is_windowed", [False, True])
def test_bars_the_venue_does_not_have_are_named_and_never_filled(
    minutes: BarSeries, tmp_path: Path, is_windowed: bool
) -> None:
    holes = [(5, 6), (97, 103), (300, 1_000)]  # one bar, over a seam, longer than two pages
    spans = [(DAY_AGO_NS + a * MINUTE_NS, DAY_AGO_NS + b * MINUTE_NS) for a, b in holes]
    there = minutes
    for span in spans:
        there = without(there, *span)
    venue = PagedVenue(there, page=300, is_windowed=is_windowed)

    done = bring(venue, tmp_path)

    assert_holds(tmp_path / NAME, between(there, DAY_AGO_NS, NOW_NS))
    assert (done.gaps, done.missing) == (tuple(spans), 707)
    ((told,),) = [one.files for one in list_recordings(tmp_path, INSTRUMENTS, {})]
    assert (told.gaps, told.missing, told.longest_gap_ns) == (3, 707, spans[2][0])


def test_hole_is_asked_for_again_and_closed_when_the_venue_has_it(
    minutes: BarSeries, tmp_path: Path
) -> None:
    hole = (DAY_AGO_NS + 50 * MINUTE_NS, DAY_AGO_NS + 60 * MINUTE_NS)
    bring(PagedVenue(without(minutes, *hole)), tmp_path / "again")
    bring(PagedVenue(minutes), tmp_path / "whole")
    venue = PagedVenue(minutes)

    done = bring(venue, tmp_path / "again")

    assert (venue.asked, done.new_rows, done.missing) == ([hole[0]], 10, 0)
    assert (tmp_path / "again" / NAME).read_bytes() == (tmp_path / "whole" / NAME).read_bytes()


def test_bars_before_the_venues_first_are_missing(minutes: BarSeries, tmp_path: Path) -> None:
    listed_ns = NOW_NS - 100 * MINUTE_NS
    venue = PagedVenue(between(minutes, listed_ns, NOW_NS))

    done = bring(venue, tmp_path)

    assert (done.gaps, done.rows) == (((DAY_AGO_NS, listed_ns),), 100)
    assert len(venue.asked) == 1  # the answer passes over what is not there


def test_venue_that_does_not_answer_is_one_sentence_and_code_3(
    minutes: BarSeries, tmp_path: Path
) -> None:
    class Silent(PagedVenue):
        async def fetch_time(self) -> int:
            import ccxt

            raise ccxt.RequestTimeout("no answer")

    with pytest.raises(NoData, match="RequestTimeout: no answer; check market") as end:
        bring(Silent(minutes), tmp_path / "new")

    assert (end.value.exit_code, "\n" in str(end.value)) == (3, False)
    assert not (tmp_path / "new").exists()


def test_venue_that_has_none_of_the_bars_leaves_no_file(minutes: BarSeries, tmp_path: Path) -> None:
    with pytest.raises(NoData, match="until 2024-08-08T23:54:00Z, the venue has none"):
        bring(PagedVenue(between(minutes, 0, 1)), tmp_path / "new")

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("since_ns", [NOW_NS, NOW_NS - MINUTE_NS + 1, NOW_NS + 10**15])
def test_span_without_a_closed_bar_is_refused(
    minutes: BarSeries, tmp_path: Path, since_ns: int
) -> None:
    with pytest.raises(InvalidRequest, match="ETH/USDT 1m: expected a span with a closed bar"):
        bring(PagedVenue(minutes), tmp_path, since_ns=since_ns)


def test_damaged_file_is_named_and_left_as_it_is(minutes: BarSeries, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"PAR1 and no more")

    with pytest.raises(InvalidRecording, match="was damaged"):
        bring(PagedVenue(minutes), tmp_path)

    assert (tmp_path / NAME).read_bytes() == b"PAR1 and no more"


def test_folder_that_cannot_be_written_is_named(minutes: BarSeries, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(StoreError, match=f"taken/{NAME}: expected to be written"):
        bring(PagedVenue(minutes), tmp_path / "taken")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda row: row[:5], "expected rows of time, open"),
        (lambda row: [*row[:4], None, row[5]], "expected rows of time, open"),
        (lambda row: [*row[:3], -1.0, *row[4:]], "expected positive prices"),
        (lambda row: [row[0] + 1, *row[1:]], "expected an open on a whole 1m"),
        (lambda row: [*row[:4], float("nan"), row[5]], "expected finite prices"),
    ],
)
def test_what_cannot_be_a_bar_ends_the_download_and_the_pages_before_stay(
    minutes: BarSeries, tmp_path: Path, spoil: Callable[[list[Any]], list[Any]], said: str
) -> None:
    class Spoiling(PagedVenue):
        async def fetch_ohlcv(self, *args: Any, since: int, limit: int) -> list[list[Any]]:
            rows = await super().fetch_ohlcv(*args, since=since, limit=limit)
            return rows if len(self.asked) == 1 else [*rows[:-1], spoil(rows[-1])]

    with pytest.raises(InvalidRecording, match=said):
        bring(Spoiling(minutes, page=100), tmp_path)

    assert_holds(tmp_path / NAME, between(minutes, DAY_AGO_NS, DAY_AGO_NS + 100 * MINUTE_NS))


def test_command_tells_what_came_and_what_is_missing(
    minutes: BarSeries, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = (DAY_AGO_NS + 50 * MINUTE_NS, DAY_AGO_NS + 60 * MINUTE_NS)
    venue = PagedVenue(without(minutes, *hole))
    asked = ("paged", "ETH/USDT", "1m", DAY_AGO_NS, None)

    told = client.download(tmp_path, *asked, venue=lambda: venue)

    file = tmp_path / "market" / "paged-download" / NAME
    assert told == {
        "downloaded": [
            {
                "file": str(file), "rows": 1_430, "new_rows": 1_430, "first_ns": DAY_AGO_NS,
                "last_ns": NOW_NS - MINUTE_NS, "missing": 10,
            }
        ],
        "gaps": [{"from_ns": hole[0], "until_ns": hole[1], "missing": 10}],
    }  # fmt: skip
    assert_holds(file, between(without(minutes, *hole), DAY_AGO_NS, NOW_NS))
    out, err = capsys.readouterr()
    assert (out, "1440/1440" in err) == ("", True)
    json.dumps(told)


def test_command_ends_with_code_3_where_nobody_answers(minutes: BarSeries, tmp_path: Path) -> None:
    class Silent(PagedVenue):
        async def fetch_time(self) -> int:
            await asyncio.Event().wait()
            return 0

    (tmp_path / "config.toml").write_text("[feed]\nprobe_s = 0.05\n")

    with pytest.raises(NoData, match=r"paged: expected an answer within 0\.05 s") as end:
        client.download(tmp_path, "paged", "ETH/USDT", "1m", 0, None, venue=lambda: Silent(minutes))

    assert end.value.exit_code == 3
    assert not (tmp_path / "market").exists()


def test_real_client_brings_hours_page_by_page_over_the_one_that_is_missing(
    recordings: Path, tmp_path: Path
) -> None:
    hour = Timeframe.H1
    stretch = Recording(
        recordings, from_ns=NOW_NS + 50 * SECOND_NS, until_ns=NOW_NS + 70 * SECOND_NS
    )
    truth = read_candles(recordings / "candles-1h-ETHUSDT.parquet", INSTRUMENTS[0], hour)
    end_ns = hour.floor(NOW_NS)
    since_ns = end_ns - 13_000 * hour.ns

    async def bring_hours() -> Downloaded:
        async with opened(Exchange(stretch)) as exchange:
            source = Live("binance", (), Feed(), url=exchange.url)
            return await download_span(source, "ETH/USDT", hour, tmp_path, since_ns=since_ns)

    done = asyncio.run(bring_hours())

    missing_ns = 1_679_662_800 * SECOND_NS  # 2023-03-24T13:00:00Z
    assert_holds(done.file, between(truth, since_ns, end_ns))
    assert (done.gaps, done.rows) == (((missing_ns, missing_ns + hour.ns),), 12_999)


@settings(max_examples=40, deadline=None)
@given(
    there=st.lists(st.booleans(), min_size=30, max_size=60).filter(any),
    page=st.integers(1, 20),
    down_after=st.integers(1, 20),
    since=st.integers(0, 10),
)
def test_any_page_hole_and_interrupt_ends_with_what_the_venue_has(
    there: list[bool], page: int, down_after: int, since: int
) -> None:
    opens_T = np.arange(len(there), dtype=np.int64) * MINUTE_NS + DAY_AGO_NS
    numbers_TC = np.tile(np.arange(1.0, len(there) + 1)[:, None], 5)
    has = only(BarSeries("ETH/USDT", Timeframe.M1, opens_T, numbers_TC), np.array(there))
    since_ns, now_ns = int(opens_T[since]), int(opens_T[-1]) + MINUTE_NS
    asked = between(has, since_ns, now_ns)

    with tempfile.TemporaryDirectory() as name:
        for down in (down_after, None):
            venue = PagedVenue(has, now_ns=now_ns, page=page, down_after=down)
            try:
                done = bring(venue, Path(name), since_ns=since_ns)
            except NoData:
                continue
            assert_holds(Path(name) / NAME, asked)
            assert done.missing == len(there) - since - len(asked)
            assert sum(b - a for a, b in done.gaps) == done.missing * MINUTE_NS
        assert (Path(name) / NAME).is_file() == bool(len(asked))
