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
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from alphapulse.domain.errors import AlphaPulseError, ConfigError
from alphapulse.domain.inference import Thresholds
from alphapulse.domain.inputs import INPUT_SPEC
from alphapulse.domain.market import Instrument
from alphapulse.domain.trading import VenueRules

PREFIX = "ALPHAPULSE__"
TAUGHT = ("market", "feed", "training")  # sections the first training depends on
_LAKE_SCHEMES = ("s3", "gs", "az")  # object stores; all but s3 with their library's own variables
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
        _check(self)

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


def _check(settings: Settings) -> None:
    market = settings.market
    if len(market.symbols) < 2 or len(set(market.symbols)) != len(market.symbols):
        raise ConfigError(
            f"market.symbols: expected two or more different symbols, was {list(market.symbols)}; "
            "name the traded ones, the reference second"
        )
    if not len(market.tick_sizes) == len(market.bucket_sizes) == len(market.symbols):
        raise ConfigError(
            f"market: expected one tick size and one bucket size a symbol ({len(market.symbols)}), "
            f"was {len(market.tick_sizes)} and {len(market.bucket_sizes)}; "
            "list them in the order of market.symbols"
        )
    if not market.exchanges:
        raise ConfigError(
            "market.exchanges: expected at least one ccxt id, was none; binance is one"
        )
    try:
        _ = market.instruments
        _ = settings.decision.thresholds
    except AlphaPulseError as error:
        raise ConfigError(str(error)) from None
    if settings.feed.cache_bars < 300:
        raise ConfigError(
            f"feed.cache_bars: expected at least 300, was {settings.feed.cache_bars}; "
            "600 is the default"
        )
    if settings.ray.market_shards < 1:
        raise ConfigError(
            f"ray.market_shards: expected 1 or more, was {settings.ray.market_shards}; "
            "1 keeps all symbols in one process"
        )
    _check_address("lake_uri", settings.storage.lake_uri)
    _check_address("archive_uri", settings.storage.archive_uri)
    _check_trading(settings)
    _check_retention(settings.storage)
    for name in ("http_port", "dashboard_port", "monitor_port"):
        port = getattr(settings.server, name)
        if not 1 <= port <= 65535:
            raise ConfigError(
                f"server.{name}: expected a port from 1 to 65535, was {port}; choose a free one"
            )


def _check_address(name: str, uri: str) -> None:
    scheme, is_address, rest = uri.partition("://")
    if is_address and (scheme not in _LAKE_SCHEMES or "@" in rest):
        raise ConfigError(  # the address is not repeated: it may hold a key
            f"storage.{name}: expected a folder or {' or '.join(_LAKE_SCHEMES)}://bucket/prefix "
            "without credentials, was an address of another kind; "
            "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/lake.md)"
        )


def _check_trading(settings: Settings) -> None:
    trading, risk, learning = settings.trading, settings.risk, settings.learning
    feed, storage = settings.feed, settings.storage
    if len(trading.quantity_steps) != len(settings.market.symbols):
        raise ConfigError(
            f"trading.quantity_steps: expected one a symbol ({len(settings.market.symbols)}), was "
            f"{len(trading.quantity_steps)}; list them in the order of market.symbols"
        )
    ranges: list[tuple[str, float, bool, str]] = [
        ("feed.price_jump_pct", feed.price_jump_pct, 0 < feed.price_jump_pct < 100,
         "above 0, below 100"),
        ("feed.stale_s", feed.stale_s, feed.stale_s > 0, "above 0"),
        ("feed.book_drift_pct", feed.book_drift_pct, feed.book_drift_pct > 0, "above 0"),
        ("feed.skew_ms", feed.skew_ms, feed.skew_ms > 0, "above 0"),
        ("feed.start_s", feed.start_s, feed.start_s > 0, "above 0"),
        ("feed.silent_s", feed.silent_s, feed.silent_s > 0, "above 0"),
        ("feed.backfill_s", feed.backfill_s, feed.backfill_s >= 0, "0 or more"),
        ("feed.reconnect_s", feed.reconnect_s, feed.reconnect_s >= 0, "0 or more"),
        ("trading.initial_cash", trading.initial_cash, trading.initial_cash > 0, "above 0"),
        ("trading.quantity_steps", min(trading.quantity_steps), min(trading.quantity_steps) > 0,
         "each above 0"),
        ("trading.min_notional", trading.min_notional, trading.min_notional >= 0, "0 or more"),
        ("trading.fee_bps", trading.fee_bps, trading.fee_bps >= 0, "0 or more"),
        ("trading.latency_ms", trading.latency_ms, 0 <= trading.latency_ms < 1000, "0 to 999"),
        ("trading.half_spread_bps", trading.half_spread_bps, trading.half_spread_bps >= 0,
         "0 or more"),
        ("risk.stop_r", risk.stop_r, risk.stop_r > 0, "above 0"),
        ("risk.risk_pct", risk.risk_pct, 0 < risk.risk_pct <= 100, "above 0, at most 100"),
        ("risk.max_position_pct", risk.max_position_pct, 0 < risk.max_position_pct <= 100,
         "above 0, at most 100"),
        ("risk.max_drawdown_pct", risk.max_drawdown_pct, 0 < risk.max_drawdown_pct <= 100,
         "above 0, at most 100"),
        ("learning.debounce_s", learning.debounce_s, learning.debounce_s >= 0, "0 or more"),
        ("learning.min_examples", learning.min_examples, learning.min_examples >= 4, "4 or more"),
        ("learning.max_examples", learning.max_examples,
         learning.max_examples >= learning.min_examples, "min_examples or more"),
        ("learning.held_out_share", learning.held_out_share, 0 < learning.held_out_share < 1,
         "between 0 and 1"),
        ("learning.promote_at", learning.promote_at, learning.promote_at > 1, "above 1"),
        ("storage.retry_records", storage.retry_records, storage.retry_records >= 1, "1 or more"),
        ("storage.spill_after_s", storage.spill_after_s, storage.spill_after_s >= 0, "0 or more"),
        ("storage.spill_mb", storage.spill_mb, storage.spill_mb >= 0, "0 or more"),
    ]  # fmt: skip
    for name, value, holds, wanted in ranges:
        if not holds:
            raise ConfigError(f"{name}: expected {wanted}, was {value}; see docs/configuration.md")


def _check_retention(storage: Storage) -> None:
    ranges: list[tuple[str, float, bool, str]] = [
        ("max_age_days", storage.max_age_days, storage.max_age_days >= 0, "0 or more"),
        ("max_decisions", storage.max_decisions, storage.max_decisions >= 0, "0 or more"),
        ("max_bytes", storage.max_bytes, storage.max_bytes >= 0, "0 or more"),
        ("half_life_days", storage.half_life_days, storage.half_life_days > 0, "above 0"),
        ("audit_share", storage.audit_share, 0 <= storage.audit_share <= 1, "0 to 1"),
        ("disk_free_pct", storage.disk_free_pct, 0 <= storage.disk_free_pct < 100, "0 to 100"),
        ("disk_free_gb", storage.disk_free_gb, storage.disk_free_gb >= 0, "0 or more"),
        ("prune_s", storage.prune_s, storage.prune_s > 0, "above 0"),
    ]
    for name, value, holds, wanted in ranges:
        if not holds:
            raise ConfigError(
                f"storage.{name}: expected {wanted}, was {value}; see docs/retention.md"
            )


def load_settings(
    home: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings of `home`.

    Defaults first, then HOME/config.toml, then ALPHAPULSE__SECTION__KEY variables. Raises
    ConfigError on an unknown section or key, a value of the wrong type, or one outside its range.
    """
    values: dict[str, dict[str, Any]] = {}
    path = home / "config.toml" if home else None
    if path and path.exists():
        try:
            _merge(values, tomllib.loads(path.read_text()), where=str(path))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"{path}: expected TOML, was {error}; correct or remove the file"
            ) from None
    _merge(values, _from_environ(os.environ if environ is None else environ), where="environment")
    sections = {f.name: f.type for f in dataclasses.fields(Settings)}
    hints = typing.get_type_hints(Settings)
    return Settings(**{name: _build(hints[name], name, values.get(name, {})) for name in sections})


def _from_environ(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in environ.items():
        if key.startswith(PREFIX):
            parts = key.removeprefix(PREFIX).lower().split("__")
            if len(parts) != 2:
                raise ConfigError(
                    f"{key}: expected {PREFIX}SECTION__KEY; see `alphapulse config show`"
                )
            found.setdefault(parts[0], {})[parts[1]] = value
    return found


def _merge(into: dict[str, dict[str, Any]], new: Mapping[str, Any], *, where: str) -> None:
    hints = typing.get_type_hints(Settings)
    for section, content in new.items():
        if section not in hints or not isinstance(content, Mapping):
            raise ConfigError(
                f"{where}: unknown section {section!r}; expected one of {', '.join(hints)}"
            )
        known = {f.name for f in dataclasses.fields(hints[section])}
        for key, value in content.items():
            if key not in known:
                raise ConfigError(
                    f"{where}: unknown key {section}.{key}; "
                    f"expected one of {', '.join(sorted(known))}"
                )
            into.setdefault(section, {})[key] = value


def _build(cls: Any, section: str, values: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    return cls(
        **{key: _convert(value, hints[key], f"{section}.{key}") for key, value in values.items()}
    )


def _convert(value: Any, wanted: Any, where: str) -> Any:
    """Return `value` as `wanted`; text (from the environment) is parsed, all else must fit."""
    if isinstance(wanted, types.GenericAlias) or typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ConfigError(f"{where}: expected a list, was {value!r}")
        return tuple(_convert(part, item, where) for part in items)
    if isinstance(value, str) and wanted is bool:
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"{where}: expected true or false, was {value!r}")
        return value.lower() == "true"
    if isinstance(value, str) and wanted is not str:
        try:
            return wanted(value)
        except ValueError:
            raise ConfigError(f"{where}: expected {wanted.__name__}, was {value!r}") from None
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{where}: expected {wanted.__name__}, was {value!r}")
    return value
