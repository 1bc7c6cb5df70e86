"""Every setting with its default, unit and meaning.

Defaults <- TOML <- ALPHAPULSE__SECTION__KEY; unknown keys are errors. Secrets never live here. The
sections in DECISIVE can change a decision and therefore enter the config hash; `server`, `storage`
and `ray` cannot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import ConfigError
from alphapulse.domain.inference import Thresholds
from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.market import Instrument
from alphapulse.domain.trading import VenueRules
from alphapulse.settings.ranges import require_possible
from alphapulse.settings.values import build, from_environ, merge

TAUGHT = ("market", "feed", "training")  # sections the first training depends on
DECISIVE = (*TAUGHT, "decision", "trading", "risk", "learning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What is watched."""

    # the first is the primary one; models see the second beside each, and the first beside it
    symbols: tuple[str, ...] = ("ETH/USDT", "BTC/USDT")
    tick_sizes: tuple[float, ...] = (0.01, 0.01)  # smallest price step a symbol [quote currency]
    bucket_sizes: tuple[float, ...] = (1.0, 10.0)  # of a book bucket a symbol [quote currency]
    # ccxt ids of live venues; the first that answers is the run's
    exchanges: tuple[str, ...] = ("binance", "coinbase", "kraken", "okx")
    exchange_url: str = ""  # address that stands in for the API of binance; empty: its own

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """Return the watched instruments, the primary one first."""
        return tuple(
            Instrument(symbol=s, tick_size=t, bucket_size=b)
            for s, t, b in zip(self.symbols, self.tick_sizes, self.bucket_sizes, strict=True)
        )

    @property
    def taught(self) -> tuple[Instrument, ...]:
        """Return the two instruments of the first training; its models decide about all."""
        return self.instruments[:2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """How events become windows."""

    watermark_ms: int = 250  # how long an event may be late behind the newest one [ms, event time]
    gap_s: float = 5.0  # silence of a symbol after which its feed counts as down [s, event time]
    cache_bars: int = 600  # closed bars kept a stream: twice the model input (R1.10)
    cache_s: int = 300  # raw trades and one-second book rows kept [s]
    live_history_bars: int = 1000  # bars fetched a stream at a live start
    probe_s: float = 3.0  # how long a venue may take to answer before it counts as unreachable [s]
    price_jump_pct: float = 1.0  # a trade further from the recent ones must be confirmed [%]
    stale_s: float = 5.0  # age behind the newest event at which one is refused [s, event time]
    book_drift_pct: float = 0.5  # move of the price after which the book is fetched anew [%]
    skew_ms: float = 500.0  # difference to the venue's clock at which people are told [ms]
    start_s: float = 10.0  # within which every live stream must have begun [s]
    silent_s: float = 3.0  # without a message after which a live stream is opened anew [s]
    backfill_s: float = 5.0  # most that everything waits for missed trades to be fetched [s]
    indicators: tuple[str, ...] = ()  # modules of your own indicators, imported where bars come in
    reconnect_s: float = 1.0  # pause before the first attempt to reconnect; it doubles, to 30 s [s]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRules:
    """When the orchestrator acts."""

    entry_threshold: float = 0.6  # least confidence to open a position
    exit_threshold: float = 0.5  # least confidence to close one

    @property
    def thresholds(self) -> Thresholds:
        """Return both as one value."""
        return Thresholds(entry=self.entry_threshold, exit=self.exit_threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The first training, on the bars before the first decision."""

    seed: int = 7  # of every random choice
    num_train: int = 1400  # training instants, the first two symbols together
    num_held_out: int = 400  # instants after them, never trained on
    epochs: int = 4  # passes over the training instants
    cost_bps: float = 10.0  # Binance spot taker fee, tier 0, 2026-11 [bps a side]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trading:
    """The account, and what the venue does to an order."""

    initial_cash: float = 10_000.0  # of the paper account [quote currency]
    quantity_steps: tuple[float, ...] = (0.0001, 0.00001)  # smallest, a symbol [base currency]
    min_notional: float = 5.0  # Binance spot, 2026-11 [quote currency]
    allow_short: bool = False  # whether sell may open a short; spot permits none
    fee_bps: float = 10.0  # Binance spot taker, tier 0, 2026-11 [bps a side]
    latency_ms: int = 100  # from a decision to its order at the venue, below 1000 [ms, event time]
    half_spread_bps: float = 1.0  # paid where there is no book to walk [bps]


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """How much may be lost, and where it ends; R is one hourly volatility."""

    stop_r: float = 1.0  # distance of a stop-loss from the entry [R]
    risk_pct: float = 0.5  # of equity, lost if the stop of an entry is reached [%]
    max_position_pct: float = 25.0  # of equity, open in one instrument [%]
    max_drawdown_pct: float = 10.0  # equity below its peak at which trading halts [%]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """Training rounds on answered inferences."""

    debounce_s: float = 60.0  # between the pivots that start two rounds [s, event time]
    min_examples: int = 64  # answered inferences below which a round is not worth its time
    max_examples: int = 384  # newest answered inferences a round learns from
    held_out_share: float = 0.3  # of the answered inferences, the newest, to compare on
    promote_at: float = 20.0  # evidence (e-value) at which a challenger becomes champion


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where people and tools connect."""

    host: str = "127.0.0.1"  # address of the HTTP endpoint; loopback unless you firewall it
    http_port: int = 8000  # of the API
    dashboard_port: int = 8265  # of Ray's dashboard and job submission
    monitor_port: int = 8501  # of the monitor's page, always on 127.0.0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The inference history."""

    lake_uri: str = ""  # folder or s3://bucket/prefix of the Delta tables; empty: HOME/lake
    flush_rows: int = 2_000  # inferences in the journal that start a batch to the lake
    flush_s: float = 30.0  # age of the oldest of them that does so too [s, wall clock]
    # decisions kept in memory while the store does not answer, the older half of them spilled;
    # what neither memory nor spill can hold is reported lost by its ids
    retry_records: int = 2_000
    # how long a decision waits for its acknowledgement before it is flagged [s]
    append_timeout_s: float = 5.0
    # how long the store may fail before what waits for it goes to the local spill [s]
    spill_after_s: float = 2.0
    spill_mb: int = 512  # size of the spill from which on it takes no more [MiB]
    spill_dir: str = ""  # folder of the spill, best on another disk; empty: in the run's folder
    # where evicted inferences go: folder or object-store URI; empty: HOME/archive; `none`: nowhere
    archive_uri: str = ""
    max_age_days: float = 0.0  # since a decision was stored, after which it leaves; 0: never [days]
    max_decisions: int = 0  # kept, of all runs together; 0: all
    max_bytes: int = 0  # alive in journals and lake together; 0: no limit [bytes]
    half_life_days: float = 7.0  # in which the recency of a keep score halves [days]
    audit_share: float = 0.005  # of all decisions that never leave, 0..1
    # free space of the disk below which the least valuable decisions leave first: either one
    disk_free_pct: float = 5.0  # of the disk; 0: not watched [%]
    disk_free_gb: float = 2.0  # 0: not watched [GB]
    prune_s: float = 3600.0  # between two looks at the limits [s, wall clock]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The Ray cluster."""

    address: str = ""  # of a cluster to join; empty: RAY_ADDRESS, else start a head here
    num_cpus: int = 0  # logical CPUs of a head started here; 0: as many as the machine has
    object_store_mb: int = 400  # of a head started here [MiB]
    market_shards: int = 1  # processes that share the symbols; 1: the market actor has them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All sections."""

    market: Market = field(default_factory=Market)
    feed: Feed = field(default_factory=Feed)
    decision: DecisionRules = field(default_factory=DecisionRules)
    training: Training = field(default_factory=Training)
    trading: Trading = field(default_factory=Trading)
    risk: Risk = field(default_factory=Risk)
    learning: Learning = field(default_factory=Learning)
    server: Server = field(default_factory=Server)
    storage: Storage = field(default_factory=Storage)
    ray: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        require_possible(self)

    @property
    def hash(self) -> str:
        """Return sha256 over all that can change a decision: sections and inputs' layout."""
        return self._hash_of(DECISIVE)

    @property
    def training_hash(self) -> str:
        """Return sha256 over the sections that can change the first checkpoints, and the layout."""
        return self._hash_of(TAUGHT)

    def _hash_of(self, sections: Sequence[str]) -> str:
        chosen: dict[str, Any] = {n: dataclasses.asdict(getattr(self, n)) for n in sections}
        chosen["inputs"] = INPUT_SPEC.content_hash  # of another version: another run, other models
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def venue_rules(self) -> dict[str, VenueRules]:
        """Return what the venue lets through, by symbol, as money."""
        market, trading = self.market, self.trading
        steps = zip(market.symbols, market.tick_sizes, trading.quantity_steps, strict=True)
        return {
            symbol: VenueRules(
                tick_size=Decimal(repr(tick)),
                quantity_step=Decimal(repr(step)),
                min_notional=Decimal(repr(trading.min_notional)),
                allow_short=trading.allow_short,
            )
            for symbol, tick, step in steps
        }

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return every section as plain values, ready for JSON or TOML."""
        plain: dict[str, dict[str, Any]] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def load_settings(
    home: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings of `home`.

    Defaults first, then HOME/config.toml, then ALPHAPULSE__SECTION__KEY variables. Raises
    ConfigError on an unknown section or key, a value of the wrong type, or one outside its range.
    """
    values: dict[str, dict[str, Any]] = {}
    hints = typing.get_type_hints(Settings)
    path = home / "config.toml" if home else None
    if path and path.exists():
        try:
            merge(values, tomllib.loads(path.read_text()), hints, where=str(path))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"{path}: expected TOML, was {error}; correct or remove the file"
            ) from None
    from_outside = from_environ(os.environ if environ is None else environ)
    merge(values, from_outside, hints, where="environment")
    names = [section.name for section in dataclasses.fields(Settings)]
    return Settings(**{name: build(hints[name], name, values.get(name, {})) for name in names})
