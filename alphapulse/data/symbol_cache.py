"""Hold the newest of one symbol: its bars with indicators, its book, its trades."""

from __future__ import annotations

import numpy as np

from alphapulse.config import Feed
from alphapulse.data.bars import BarMaker
from alphapulse.data.book import Book, BookChange
from alphapulse.data.rows import BUCKETS, TRADES, Columns, Rows, read_only
from alphapulse.domain.market import (
    LOTS,
    SECOND_NS,
    TIMEFRAMES,
    Bar,
    BarFlag,
    BarSeries,
    BookDelta,
    Bools,
    FeedGap,
    Floats,
    Instrument,
    Timeframe,
    Trade,
    Trades,
)
from alphapulse.domain.trading import Quote
from alphapulse.domain.windows import BookWindow, Buckets, BucketWindow, StreamWindow
from alphapulse.features.channels import fill_book, fill_channels, room_for_bars, room_for_book
from alphapulse.features.indicators import RowBuilder
from alphapulse.features.rows import BOOK_COLUMNS, BUCKET_COLUMN

# axes: N trade · C column of the rows
FORMING, PARTIAL = int(BarFlag.FORMING), int(BarFlag.PARTIAL)
INCOMPLETE, VENUE = int(BarFlag.INCOMPLETE), int(BarFlag.VENUE)
TRADED = [BUCKET_COLUMN["bought"], BUCKET_COLUMN["sold"]]
SECONDS = Timeframe.S1
QUOTE_LEVELS = 500  # a side: an order walks no further
FormingRow = tuple[Floats, int]  # row, BarFlag bits


class SymbolCache:
    """All that is kept of one symbol; events come in order, `close` at every whole second.

    A trade waits until a second closes or somebody reads, and is counted with the others then: in
    everything that can be read at such a moment the trades of a second commute with the changes of
    the book.

    Attributes:
        book: the resting orders.
        builders: by timeframe, what makes rows of bars.
        rows: by timeframe, the closed rows.
        book_rows: the one-second rows of the book.
        has_book: whether a message of the book has come.
        last_trade_id: number of the newest trade, 0 before the first.
        last_book_id: number of the newest book update, 0 before the first.
    """

    def __init__(self, instrument: Instrument, settings: Feed) -> None:
        keep, self.symbol = settings.cache_bars, instrument.symbol
        self.book = Book(instrument)
        self.builders = {tf: RowBuilder(self.symbol, tf) for tf in TIMEFRAMES}
        self.rows = {
            tf: Rows(
                keep=keep,
                num_columns=len(builder.columns),
                room=room_for_bars,
                show=fill_channels,
            )
            for tf, builder in self.builders.items()
        }
        self.book_rows = Rows(
            keep=settings.cache_s,
            num_columns=len(BOOK_COLUMNS),
            room=room_for_book,
            show=fill_book,
        )
        self.has_book = False
        self.last_trade_id = self.last_book_id = 0
        self._settings = settings
        self._bars = BarMaker(self.symbol, gap_s=settings.gap_s)
        self._trades, self._buckets = Columns(*TRADES), Columns(*BUCKETS)
        self._waiting: list[Trade] = []

    @property
    def own(self) -> tuple[str, ...]:
        """Return the names of the users' indicators that models see in the rows."""
        return self.builders[SECONDS].own

    @property
    def bars(self) -> BarMaker:
        """Return what makes the bars, every trade taken inside."""
        self._count_waiting()
        return self._bars

    @property
    def trades(self) -> Trades:
        """Return views of the trades of the last `cache_s` seconds, oldest first."""
        self._count_waiting()
        return Trades(self.symbol, *self._trades.all())

    @property
    def buckets(self) -> Buckets | None:
        """Return the book within one percent of the mid now; None while it is unknown."""
        buckets = self.book.buckets()
        if buckets is not None:
            read_only(buckets.price_K, buckets.bids_K, buckets.asks_K)
            read_only(buckets.known_bids_K, buckets.known_asks_K)
        return buckets

    @property
    def bucket_seconds(self) -> BucketWindow:
        """Return views of the book by bucket, a snapshot a second for `cache_s` seconds."""
        return BucketWindow(self.symbol, *self._buckets.all())

    def seed(self, series: BarSeries) -> None:
        """Take the closed bars of one timeframe from before the first event, all there are."""
        self._bars.seed(series)
        rows, keep = self.rows[series.timeframe], self._settings.cache_bars
        rows_TC, flags_T = self.builders[series.timeframe].open(series, newest=keep)
        newest = (series.open_ns_T[-keep:].tolist(), rows_TC, flags_T.tolist())
        for ts_ns, row_C, flags in zip(*newest, strict=True):
            rows.append(ts_ns, row_C, flags)

    def take_gap(self, gap: FeedGap) -> None:
        """Note that the feed was down: its seconds are missing, and the book if it was lost."""
        self._bars.gap(gap.from_ns, gap.ts_ns)
        self._flag_gaps()
        if gap.is_book_lost:
            self.book.forget()

    def take_candle(self, candle: Bar) -> None:
        """Take the venue's own candle."""
        self._bars.venue(candle)

    def take_trade(self, trade: Trade) -> bool:
        """Take a trade of the open second; False if it is not newer than the newest."""
        if trade.trade_id <= self.last_trade_id:
            return False
        self.last_trade_id = trade.trade_id
        self._bars.heard(trade.ts_ns)
        self._waiting.append(trade)
        return True

    def take_late(self, trade: Trade) -> bool:
        """Take a trade whose second has closed without it; False if it is not the newest.

        It is one of the trades, and for the bars its moment is a gap.
        """
        kept_ns_N = self.trades.ts_ns_N
        is_newest = not len(kept_ns_N) or trade.ts_ns >= kept_ns_N[-1]
        if trade.trade_id <= self.last_trade_id or not is_newest:
            return False
        self.last_trade_id = trade.trade_id
        self._trades.extend(Trades.of([trade]).columns)
        self._bars.late(trade.ts_ns, trade.price)
        self._flag_gaps()
        return True

    def take_trades(self, trades: Trades) -> Bools:
        """Take trades of the open second; bool (N,), False where not newer than those before."""
        before_N = np.concatenate(([self.last_trade_id], trades.trade_id_N[:-1]))
        is_new_N: Bools = trades.trade_id_N > np.maximum.accumulate(before_N)
        new = trades if is_new_N.all() else trades.part(is_new_N)
        if len(new):
            self._count_waiting()
            self.last_trade_id = int(new.trade_id_N[-1])
            for ts_ns in new.ts_ns_N.tolist():
                self._bars.heard(ts_ns)
            self._count(new)
        return is_new_N

    def take_delta(self, delta: BookDelta) -> BookChange:
        """Take a message of the book; raises InvalidEvent if it cannot be of this instrument."""
        change = self.book.apply(delta)
        self._bars.heard(delta.ts_ns)
        self.has_book = True
        self.last_book_id = max(self.last_book_id, delta.last_id)
        return change

    def close(self, boundary_ns: int) -> list[Bar]:
        """Close what ends at the whole second `boundary_ns` [ns UTC]; return the bars closed."""
        bars = self.bars.close(boundary_ns)
        self._flag_gaps()
        for bar in bars:
            row_C, flags = self.builders[bar.timeframe].close(bar)
            self.rows[bar.timeframe].append(bar.open_ns, row_C, flags)
        if self.has_book:
            self._close_book(boundary_ns)
        oldest_ns = boundary_ns - self._settings.cache_s * SECOND_NS
        self._trades.forget(oldest_ns)
        self._buckets.forget(oldest_ns + SECOND_NS)  # a boundary stands for the second before it
        return bars

    def _close_book(self, boundary_ns: int) -> None:
        if self._bars.has_gap(boundary_ns - SECOND_NS, boundary_ns):
            self.book.miss_trades()
        snapshot = self.book.bucket_second(boundary_ns)
        if snapshot is not None:
            columns = (snapshot.price_K, snapshot.rows_KC, snapshot.known_KC)
            self._buckets.extend((boundary_ns, *columns))
        self.book_rows.append(boundary_ns, self.book.second_row(boundary_ns), 0)

    def _flag_gaps(self) -> None:
        """Flag the closed rows that lie in a new gap: what was known of it then was not all."""
        for from_ns, until_ns in self._bars.take_gaps():
            for timeframe, rows in self.rows.items():
                first_ns = from_ns - timeframe.ns + 1
                rows.flag(INCOMPLETE, from_ns=first_ns, until_ns=until_ns, but=VENUE)
            span = {"from_ns": from_ns + 1, "until_ns": until_ns + SECOND_NS}  # boundaries
            self.book_rows.flag(INCOMPLETE, **span)
            *_, known_RC = self._buckets.between(**span)
            if known_RC[:, TRADED].any():
                *_, rows_RC, known_RC = self._buckets.renewed(**span)
                rows_RC[:, TRADED], known_RC[:, TRADED] = np.nan, 0

    def stream(self, timeframe: Timeframe, event_ns: int, *, count: int) -> StreamWindow | None:
        """Return the newest bars of the last `count` periods, None if there is nothing to show."""
        last_slot_ns = timeframe.floor(event_ns)
        if timeframe is SECONDS:
            forming, last_slot_ns = None, last_slot_ns - SECOND_NS
        else:
            forming = self.forming(timeframe, event_ns)
        if forming is None and not len(self.rows[timeframe]):
            return None
        first_ns = last_slot_ns - (count - 1) * timeframe.ns
        closed = self.rows[timeframe].newest(count, from_ns=first_ns)
        row_C, flags = forming or (None, 0)
        return StreamWindow(
            symbol=self.symbol,
            timeframe=timeframe,
            open_ns_T=closed[0],
            rows_TC=closed[1],
            flags_T=closed[2],
            forming_open_ns=None if forming is None else last_slot_ns,
            forming_C=row_C,
            forming_flags=flags,
        ).with_shown(closed[3])

    def forming(self, timeframe: Timeframe, event_ns: int) -> FormingRow | None:
        """Return the row of the bar not closed yet; None before the first price."""
        forming = self.bars.forming(timeframe, event_ns)
        if forming is None:
            return None
        bar, is_partial = forming
        row_C, flags = self.builders[timeframe].peek(bar)
        read_only(row_C)
        return row_C, flags | FORMING | (PARTIAL if is_partial else 0)

    def book_window(self, event_ns: int, *, count: int) -> BookWindow:
        """Return the book's rows of the last `count` seconds."""
        first_ns = event_ns - (count - 1) * SECOND_NS
        second_ns_T, rows_TB, flags_T, shown = self.book_rows.newest(count, from_ns=first_ns)
        return BookWindow(self.symbol, second_ns_T, rows_TB, flags_T).with_shown(shown)

    def quote(self, at_ns: int) -> Quote | None:
        """Return what an order at `at_ns` meets now, None before the first price."""
        price = self.bars.price
        if price is None:
            return None
        bids_L2, asks_L2 = self.book.levels(QUOTE_LEVELS)
        source = "book" if len(bids_L2) and len(asks_L2) else "trade"
        return Quote(self.symbol, at_ns, source, price, bids_L2, asks_L2)

    def _count_waiting(self) -> None:
        if self._waiting:
            self._count(Trades.of(self._waiting))
            self._waiting.clear()

    def _count(self, trades: Trades) -> None:
        self._trades.extend(trades.columns)
        self._bars.trades(trades.ts_ns_N, trades.price_N, trades.lots_N)
        columns = (trades.price_N, trades.lots_N, trades.is_buy_N)
        for price, lots, is_buy in zip(*(column.tolist() for column in columns), strict=True):
            self.book.note_trade(price, lots / LOTS, is_buy=is_buy)
