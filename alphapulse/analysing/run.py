"""Run the checks that were asked for over a recording, and say what leaks and where."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.analysing import subjects
from alphapulse.analysing.asked_models import look_at_inputs, look_at_models
from alphapulse.analysing.telling import finding_row, skill_row, warming_row
from alphapulse.analysing.windows import ask, candles_of
from alphapulse.config import Settings, load_settings
from alphapulse.data.recordings import read_series
from alphapulse.data.tape import VARIABLE, find_recording
from alphapulse.domain.errors import InvalidRequest, NoData
from alphapulse.domain.market import BarSeries, Instrument, Timeframe
from alphapulse.features import registry
from alphapulse.features.depths import Warming, too_short, warm_up
from alphapulse.features.known_labels import look_at_labels
from alphapulse.features.lookahead import EARLY_CUTS, LEAK, Finding, Subject, cuts_of, look
from alphapulse.features.skill import Skill, skills, too_good

NUM_BARS = 3_000  # newest bars of a stream that are looked at
LEAST_BARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to check; nothing named is everything built in.

    Attributes:
        features: names of functions of a frame of bars.
        labels: names of functions of a frame of bars and a time.
        models: checkpoint folders or names of classes, in the order they are asked.
        own_labels: labels that are built in.
        timeframes: streams looked at; none is all the recording has.
        symbol: whose bars; None is the first configured one.
        num_bars: newest bars of a stream that are looked at.
    """

    features: Sequence[str] = ()
    labels: Sequence[str] = ()
    models: Sequence[str] = ()
    own_labels: Sequence[str] = ()
    timeframes: Sequence[str] = ()
    symbol: str | None = None
    num_bars: int = NUM_BARS

    @property
    def is_built_in(self) -> bool:
        """Return whether nothing is named."""
        return not (self.features or self.labels or self.models)


@dataclass(slots=True)
class _Report:
    """What was found so far."""

    findings: list[Finding] = field(default_factory=list)
    warmings: list[tuple[str, Warming]] = field(default_factory=list)
    skills: list[tuple[str, Skill]] = field(default_factory=list)
    checked: list[dict[str, Any]] = field(default_factory=list)

    def note(self, name: str, what: str, num_bars: int, checks: str, begun_s: float) -> None:
        self.checked.append(
            {
                "subject": name,
                "what": what,
                "bars": num_bars,
                "checks": checks,
                "seconds": round(time.perf_counter() - begun_s, 2),
            }
        )


def analyse(home: Path, recording: Path | None, wish: Wish) -> dict[str, Any]:
    """Return what leaks, what to beware of, and the figures, as plain values.

    Args:
        home: whose settings; its `market` folder is the last place where recordings are looked for.
        recording: folder given by hand; None looks at ALPHAPULSE_RECORDINGS, then at HOME/market.
        wish: what to check.

    Raises InvalidRequest if a name is none or what it names fails, NoData or InvalidRecording if
    there is nothing to check it on.
    """
    settings = load_settings(home)
    registry.load(settings.feed.indicators)
    instrument = _instrument(settings, wish.symbol)
    folder = _folder(home, recording, settings)
    report = _Report()
    series = list(_streams(folder, instrument, wish))
    if not series and not wish.models:
        raise NoData(
            f"{folder}: expected {LEAST_BARS} candles or more of {instrument.symbol} without a "
            "gap, was none of the timeframes asked for; name another recording"
        )
    if wish.is_built_in:
        for stream in series:
            _check_rows(report, stream)
    for name in wish.features:
        function = subjects.load_named(name)
        for stream in series:
            subject = subjects.feature(f"{name} {stream.timeframe}", function)
            _check_columns(report, subject, stream, "feature")
    for name in wish.own_labels if wish.is_built_in else wish.labels:
        function = subjects.load_named(name)
        for stream in series:
            if wish.is_built_in and stream.timeframe is Timeframe.S1:
                continue  # ten minutes of seconds answer next to nothing
            _check_labels(report, name, function, stream)
    if wish.is_built_in or wish.models:
        _check_models(report, wish.models, folder, settings)
    return {
        "clean": not any(finding.kind == LEAK for finding in report.findings),
        "recording": str(folder),
        "symbol": instrument.symbol,
        "leaks": [finding_row(f) for f in report.findings if f.kind == LEAK],
        "warnings": [finding_row(f) for f in report.findings if f.kind != LEAK],
        "checked": report.checked,
        "warm_up": [warming_row(*pair) for pair in report.warmings],
        "skill": [skill_row(*pair) for pair in report.skills],
    }


def _instrument(settings: Settings, symbol: str | None) -> Instrument:
    known = {i.symbol: i for i in settings.market.instruments}
    if symbol is not None and symbol not in known:
        raise InvalidRequest(
            f"--symbol {symbol}: expected one of {', '.join(known)}; set market.symbols first"
        )
    return known[symbol] if symbol else settings.market.instruments[0]


def _folder(home: Path, recording: Path | None, settings: Settings) -> Path:
    """Return the folder of the recording; one with candles alone, even a part, will do by name."""
    named = recording or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None and next(iter(named.glob("candles-*.parquet")), None):
        return named
    return find_recording(
        recording, settings.market.instruments, os.environ, roots=[home / "market"]
    )


def _streams(folder: Path, instrument: Instrument, wish: Wish) -> Iterator[BarSeries]:
    """Yield the newest bars without a gap of every timeframe that is there and asked for."""
    for timeframe in Timeframe:
        file = folder / f"candles-{timeframe}-{instrument.venue_symbol}.parquet"
        if (wish.timeframes and timeframe not in wish.timeframes) or not file.exists():
            continue
        series = read_series(file, instrument.symbol, timeframe).last(wish.num_bars)
        gaps = np.flatnonzero(np.diff(series.open_ns_T) != timeframe.ns)
        whole = series.last(len(series) - (int(gaps[-1]) + 1 if len(gaps) else 0))
        if len(whole) >= LEAST_BARS:
            yield whole


def _check_rows(report: _Report, series: BarSeries) -> None:
    name = f"rows {series.timeframe}"
    _check_columns(report, subjects.rows(name), series, "built-in rows")
    begun_s = time.perf_counter()
    report.findings += subjects.look_at_stream(name, series)
    report.note(name, "bar by bar", len(series), "stream", begun_s)


def _check_columns(report: _Report, subject: Subject, series: BarSeries, what: str) -> None:
    begun_s = time.perf_counter()
    report.findings += look(subject, series, sorted({*EARLY_CUTS, *_cuts(series)}))
    warmings = warm_up(subject, series)
    report.findings += too_short(subject, series, warmings)
    report.warmings += [(subject.name, warming) for warming in warmings]
    skilled = skills(subject.of(series), series.ohlcv_TC[:, 3])
    at_ns = int(series.open_ns_T[-1]) + series.timeframe.ns
    report.findings += too_good(subject.name, skilled, at_ns)
    report.skills += [(subject.name, skill) for skill in skilled]
    checks = "repeat, poison, prefix, warm-up, skill"
    report.note(subject.name, what, len(series), checks, begun_s)


def _check_labels(
    report: _Report, name: str, function: Callable[..., Any], series: BarSeries
) -> None:
    begun_s = time.perf_counter()
    labels = subjects.labels(f"{name} {series.timeframe}", function)
    report.findings += look_at_labels(labels, series, _cuts(series))
    report.note(labels.name, "labels", len(series), "early, revised", begun_s)


def _check_models(report: _Report, names: Sequence[str], folder: Path, settings: Settings) -> None:
    begun_s = time.perf_counter()
    models = {name: subjects.model(name) for name in names}
    asked = ask(candles_of(folder, settings), settings)
    count = len(asked.inputs_N)
    report.findings += look_at_inputs("inputs", asked, settings)
    report.note("inputs", "built-in inputs", count, "poison", begun_s)
    if not models:
        return
    begun_s = time.perf_counter()
    found, tables = look_at_models(models, asked, settings)
    report.findings += found
    for name, table in tables.items():
        skilled = skills(table, asked.close_N)
        report.findings += too_good(name, skilled, asked.inputs_N[-1].event_ns)
        report.skills += [(name, skill) for skill in skilled]
    report.note(", ".join(models), "models", count, "poison, order, skill", begun_s)


def _cuts(series: BarSeries) -> list[int]:
    return cuts_of(len(series), series.timeframe, int(series.open_ns_T[0]))
