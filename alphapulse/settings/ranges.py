"""Refuse settings that cannot be: outside their range, or not of one length with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alphapulse.domain.errors import AlphaPulseError, ConfigError

if TYPE_CHECKING:
    from alphapulse.config import Settings, Storage

_LAKE_SCHEMES = ("s3", "gs", "az")  # object stores; all but s3 with their library's own variables


def require_possible(settings: Settings) -> None:
    """Raise ConfigError, with what was expected, at the first setting that cannot be."""
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
