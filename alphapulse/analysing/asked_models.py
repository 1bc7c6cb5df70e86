"""Ask models at recorded instants, with windows whose later part is overwritten, in both orders."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alphapulse.analysing.windows import Asked, built, with_later
from alphapulse.config import Settings
from alphapulse.domain.inference import Prediction
from alphapulse.domain.inputs import CHANNELS, IncompleteInput, ModelInput
from alphapulse.domain.market import (
    TIMEFRAMES,
    Floats,
)
from alphapulse.features.lookahead import LEAK, NOTES, POISONS, Finding, Table
from alphapulse.features.rows import BOOK_COLUMNS
from alphapulse.interfaces import Model

# axes: N instant, oldest first
NUM_POISONED = 6  # instants asked with a later part overwritten too
Said = dict[str, float]
Numbers = Mapping[str, Floats]


def numbers_of(input: ModelInput | IncompleteInput) -> Numbers:
    """Return every number of an input by a name that says where it stands."""
    if isinstance(input, IncompleteInput):
        return {}
    found: dict[str, Any] = {"price": np.array([input.price]), "scale": input.scale_S2}
    told = "; ".join(input.substitutions).encode()
    found["substitutions"] = np.array([zlib.crc32(told)])
    found["peers"], found["awake"] = input.peers_KP, input.awake_K
    for s, symbol in enumerate((input.symbol, input.reference)):
        for f, timeframe in enumerate(TIMEFRAMES):
            where = f"{symbol} {timeframe}"
            found[f"{where} flags"] = input.flags_SFT[s, f]
            for c, channel in enumerate(CHANNELS):
                known_T = input.known_SFTC[s, f, :, c]
                found[f"{where} {channel}"] = np.stack([input.bars_SFTC[s, f, :, c], known_T])
        for b, column in enumerate(BOOK_COLUMNS):
            found[f"{symbol} book {column}"] = np.stack(
                [input.book_STB[s, :, b], input.known_STB[s, :, b]]
            )
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def look_at_inputs(name: str, asked: Asked, settings: Settings) -> list[Finding]:
    """Return which numbers of the inputs change with what comes after the instant."""
    found: dict[str, Finding] = {}
    for n in _spread(len(asked.inputs_N)):
        clean = numbers_of(asked.inputs_N[n])
        for fill in POISONS:
            changed = numbers_of(built(with_later(asked.windows_N[n], fill), settings))
            for column, values in clean.items():
                other = changed.get(column, np.full_like(values, np.nan))
                if other.tobytes() != values.tobytes():
                    place = int(np.argmax((other != values).ravel()))
                    pair = float(values.ravel()[place]), float(other.ravel()[place])
                    at_ns = asked.inputs_N[n].event_ns
                    found.setdefault(column, finding(name, column, "poison", at_ns, pair))
    return list(found.values())


def finding(
    subject: str, column: str, check: str, at_ns: int, pair: tuple[float, float]
) -> Finding:
    """Return the leak of a number that is one thing without what comes later, another with it."""
    return Finding(
        kind=LEAK,
        subject=subject,
        column=column,
        check=check,
        at_ns=at_ns,
        bars_ahead=1,
        num_bars=1,
        was=pair[0],
        became=pair[1],
        note=NOTES[check],
    )


def _spread(count: int) -> list[int]:
    """Return a few places out of `count`, the last among them."""
    return sorted(set(np.linspace(0, count - 1, NUM_POISONED).astype(int).tolist()))


def said_of(prediction: Prediction) -> Said:
    """Return every number of a prediction by name."""
    said = {name: getattr(prediction, name) for name in ("p_buy", "p_sell", "p_hold")}
    said |= {"confidence": prediction.confidence, "utility_r": prediction.utility_r}
    said |= {f"hidden_{h:02d}": float(v) for h, v in enumerate(prediction.hidden_H)}
    said |= {f"weight of {slot}": share for slot, share in prediction.weights.items()}
    for f in prediction.forecasts:
        for field in ("p_high", "bars_ahead", "price", "move", "p_done", "confidence"):
            said[f"{f.timeframe} L{f.level} {field}"] = getattr(f, field)
    return said


def look_at_models(
    models: Mapping[str, Model], asked: Asked, settings: Settings
) -> tuple[list[Finding], dict[str, Table]]:
    """Return what looks ahead among models, and what each says at every instant.

    Two checks: `poison` (windows whose later part is overwritten: the same bits), and `order`
    (asked again from the newest instant to the oldest: the same bits; a scale that is kept up to
    date while it predicts, or chance without a seed, shows here). Each hears those before it.

    Args:
        models: by the name they are called in findings, in the order they are asked.
        asked: instants with windows and inputs.
        settings: whose symbols.
    """
    count = len(asked.inputs_N)
    said_N = [_all_say(models, input) for input in asked.inputs_N]
    found: dict[tuple[str, str, str], Finding] = {}

    def compare(n: int, check: str, other: Mapping[str, Said]) -> None:
        for name, said in said_N[n].items():
            for column in {**said, **other[name]}:
                pair = said.get(column, np.nan), other[name].get(column, np.nan)
                if np.float64(pair[0]).tobytes() != np.float64(pair[1]).tobytes():
                    at_ns = asked.inputs_N[n].event_ns
                    found.setdefault(
                        (name, column, check), finding(name, column, check, at_ns, pair)
                    )

    for n in reversed(range(count)):
        compare(n, "order", _all_say(models, asked.inputs_N[n]))
    for n in _spread(count):
        for fill in POISONS:
            input = built(with_later(asked.windows_N[n], fill), settings)
            if isinstance(input, ModelInput):
                compare(n, "poison", _all_say(models, input))
    tables = {name: _table([said[name] for said in said_N]) for name in models}
    return list(found.values()), tables


def _all_say(models: Mapping[str, Model], input: ModelInput) -> dict[str, Said]:
    upstream: dict[str, Prediction] = {}
    for model in models.values():
        upstream[model.name] = model.predict(input, upstream=upstream)
    return {name: said_of(upstream[model.name]) for name, model in models.items()}


def _table(said_N: Sequence[Said]) -> Table:
    """Return what tells a direction, a row an instant: votes and kinds of the next pivots."""
    names = [name for name in said_N[0] if name.endswith("p_high")]
    columns = {"p_buy - p_sell": [said["p_buy"] - said["p_sell"] for said in said_N]}
    columns |= {name: [said.get(name, np.nan) for said in said_N] for name in names}
    return Table(tuple(columns), np.array(list(columns.values()), np.float64).T.copy())
