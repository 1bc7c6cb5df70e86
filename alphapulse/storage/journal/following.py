"""Read a run's journal as it happened: closed bars and decisions in event order, slice by slice."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alphapulse.domain.inference import Action, Forecast, StreamRef
from alphapulse.domain.learning import Cursor, Followed, Inference, PastDecision, ShownBar
from alphapulse.domain.market import TIMEFRAMES, BarFlag, Floats, Timeframe
from alphapulse.features.rows import COLUMN, COLUMNS
from alphapulse.storage.journal.decoding import cells_of, forecast_of, number_of, streams_of
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.journal.schema import numbers_sql

# axes: N decision and timeframe · C column of `features.rows.COLUMNS`

_VALID = int(BarFlag.VALID)
_NOTHING_C = np.full(len(COLUMNS), np.nan)
_FORECAST = ("timeframe", "level", "pivot_ns", "p_high", "p_low", "bars_ahead", "price", "move",
             "p_done", "confidence")  # fmt: skip
DECISIONS_SQL = """
  SELECT number, symbol, event_ns, streams, forming, forming_layout FROM decided
  WHERE number > :after ORDER BY number LIMIT :limit"""
OUTPUTS_SQL = f"""
  SELECT decision, model, lower(hex(id)), version, action, confidence FROM said
  WHERE {numbers_sql("outputs")} ORDER BY number"""
FORECASTS_SQL = f"""
  SELECT decision, model, {", ".join(_FORECAST)} FROM foretold
  WHERE {numbers_sql("forecasts")} ORDER BY number"""
# Rows are numbered as they were appended: all before the first that was shown later.
_BARS = """
  SELECT number, event_ns, symbol, stream, ts_ns, flags, cells, cells_layout FROM closed
  WHERE stream <> 'book' AND number > :after AND number < coalesce((
    SELECT number FROM closed_rows WHERE number > :after AND event_ns > :until_ns
    ORDER BY number LIMIT 1), 9223372036854775807)
  ORDER BY number"""
_NUMBER, _SHOWN = 0, 1
_ROW = """
  SELECT cells, cells_layout FROM closed
  WHERE symbol = :symbol AND stream = :stream AND ts_ns = :ts_ns"""


def follow(journal: JournalReader, *, after: Cursor, limit: int) -> Followed:
    """Return up to `limit` decisions after a cursor, and the bars shown up to the newest of them.

    Decisions come as they were appended, each after the bars first shown at or before its instant.
    However a journal is cut into slices, they follow each other in the same order.

    Raises StoreError if the journal cannot be read.
    """
    stored = journal.fetch(DECISIONS_SQL, {"after": after.decision, "limit": limit})
    if not stored:
        return Followed(events=(), cursor=after)
    newest, until_ns = stored[-1][0], max(row[2] for row in stored)
    bars = deque(journal.fetch(_BARS, {"after": after.row, "until_ns": until_ns}))
    events: list[ShownBar | PastDecision] = []
    row = after.row
    for decision in _decisions(journal, stored, {"after": after.decision, "to": newest}):
        while bars and bars[0][_SHOWN] <= decision.event_ns:
            row = bars[0][_NUMBER]
            events.append(_bar(bars.popleft()))
        events.append(decision)
    return Followed(events=tuple(events), cursor=Cursor(newest, row))


def _bar(row: Sequence[Any]) -> ShownBar:
    _, shown_ns, symbol, stream, open_ns, flags, cells, layout = row
    cells_C = cells_of(cells, layout)
    return ShownBar(
        symbol=symbol,
        timeframe=Timeframe(stream),
        open_ns=open_ns,
        **{name: float(cells_C[COLUMN[name]]) for name in ("open", "high", "low", "close")},
        flags=flags,
        shown_ns=shown_ns,
    )


def _decisions(
    journal: JournalReader, stored: Sequence[Sequence[Any]], span: Mapping[str, int]
) -> list[PastDecision]:
    run, inferences = journal.meta("run") or "", _inferences(journal, span)
    newest_NC: list[Floats] = []
    for _, symbol, _, *package in stored:
        refs = {ref.stream: ref for ref in streams_of(*package) if ref.symbol == symbol}
        newest_NC += [_newest_row(journal, refs.get(timeframe.value)) for timeframe in TIMEFRAMES]
    num = len(TIMEFRAMES)
    units = _units(np.array(newest_NC)).reshape(-1, num).tolist()
    minutes_C = newest_NC[TIMEFRAMES.index(Timeframe.M1) :: num]
    return [
        PastDecision(
            run=run,
            symbol=symbol,
            event_ns=event_ns,
            price=float(minute_C[COLUMN["close"]]),
            unit=dict(zip(TIMEFRAMES, unit, strict=True)),
            inferences=tuple(inferences[number]),
        )
        for (number, symbol, event_ns, *_), minute_C, unit in zip(
            stored, minutes_C, units, strict=True
        )
    ]


def _inferences(journal: JournalReader, span: Mapping[str, int]) -> dict[int, list[Inference]]:
    forecasts: dict[tuple[int, str], list[Forecast]] = defaultdict(list)
    for decision, model, *row in journal.fetch(FORECASTS_SQL, span):
        forecasts[decision, model].append(forecast_of(dict(zip(_FORECAST, row, strict=True))))
    found: dict[int, list[Inference]] = defaultdict(list)
    for decision, model, id_, version, action, confidence in journal.fetch(OUTPUTS_SQL, span):
        said = tuple(forecasts[decision, model])
        found[decision].append(Inference(
            id=id_, model=model, version=version, action=Action(action),
            confidence=number_of(confidence), forecasts=said,
        ))  # fmt: skip
    return found


def _newest_row(journal: JournalReader, ref: StreamRef | None) -> Floats:
    """Return the newest row an input showed of a stream, NaN where it showed none."""
    if ref is None:
        return _NOTHING_C
    if ref.forming_C is not None and ref.forming_flags & _VALID:
        return ref.forming_C
    at = {"symbol": ref.symbol, "stream": ref.stream, "ts_ns": ref.last_ns}
    for cells, layout in journal.fetch(_ROW, at) if ref.count else ():
        cells_C: Floats = cells_of(cells, layout)
        return cells_C
    return _NOTHING_C


def _units(rows_NC: Floats) -> Floats:
    """Return the volatility each row shows, float64 (N,) [log price], as an input's channel does.

    NaN where there is no row or it has no ATR yet.
    """
    atr_N, close_N = rows_NC[:, COLUMN["atr14"]], rows_NC[:, COLUMN["close"]]
    natr_N = (np.where(atr_N > 0, atr_N, np.nan) / close_N).astype(np.float32)
    return natr_N.astype(np.float64)
