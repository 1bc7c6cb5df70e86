"""Check how settings layer, how a wrong one is refused, and that the reference is whole."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from alphapulse.config import Settings, load_settings
from alphapulse.domain.errors import ConfigError
from alphapulse.domain.inference import Thresholds

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def write(home: Path, text: str) -> Path:
    (home / "config.toml").write_text(text)
    return home


def test_defaults_need_no_home() -> None:
    settings = load_settings(environ={})

    assert settings == Settings()
    assert [i.venue_symbol for i in settings.market.instruments] == ["ETHUSDT", "BTCUSDT"]
    assert settings.decision.thresholds == Thresholds(entry=0.6, exit=0.5)


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    home = write(tmp_path, "[server]\nhttp_port = 9000\nhost = '127.0.0.2'\n[feed]\ngap_s = 7\n")

    settings = load_settings(home, environ={"ALPHAPULSE__SERVER__HTTP_PORT": "9001"})

    assert settings.server.http_port == 9001
    assert settings.server.host == "127.0.0.2"
    assert settings.feed.gap_s == 7.0
    assert settings.server.dashboard_port == Settings().server.dashboard_port


def test_environment_text_becomes_the_type_of_the_setting() -> None:
    environ = {
        "ALPHAPULSE__MARKET__SYMBOLS": "BTC/USDT, ETH/USDT",
        "ALPHAPULSE__MARKET__TICK_SIZES": "0.1,0.01",
        "ALPHAPULSE_RECORDINGS": "not a setting",
    }

    market = load_settings(environ=environ).market

    assert market.symbols == ("BTC/USDT", "ETH/USDT")
    assert market.tick_sizes == (0.1, 0.01)


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[server]\nport = 1", "unknown key server.port; expected one of"),
        ("[sever]\nhost = 'a'", "unknown section 'sever'; expected one of market"),
        ("host = 'a'", "unknown section 'host'"),
        ("[server]\nhttp_port = 'a'", "server.http_port: expected int, was 'a'"),
        ("[server]\nhttp_port = 1.5", "server.http_port: expected int, was 1.5"),
        ("[server]\nhttp_port = 0", "server.http_port: expected a port from 1 to 65535, was 0"),
        ("[market]\nsymbols = 5", "market.symbols: expected a list, was 5"),
        ("[market]\nsymbols = ['A/B']", "market.symbols: expected two or more different symbols"),
        (
            "[market]\nsymbols = ['A/B', 'A/B']",
            "market.symbols: expected two or more different symbols",
        ),
        ("[market]\ntick_sizes = [0.1]", "one tick size and one bucket size a symbol (2), was 1"),
        ("[market]\ntick_sizes = [0.1, 0]", "0 < tick_size <= bucket_size, was tick_size 0.0"),
        ("[server]\nhttp_port = true", "server.http_port: expected int, was True"),
        ("[decision]\nentry_threshold = 0.4", "expected 0 <= exit <= entry <= 1, was entry 0.4"),
        ("[feed]\ncache_bars = 299", "feed.cache_bars: expected at least 300, was 299"),
        ("[feed]\nprice_jump_pct = 0", "feed.price_jump_pct: expected above 0, below 100"),
        ("[feed]\nstale_s = 0", "feed.stale_s: expected above 0, was 0.0"),
        ("[feed]\nsilent_s = 0", "feed.silent_s: expected above 0, was 0.0"),
        ("[market]\nexchanges = []", "market.exchanges: expected at least one ccxt id, was none"),
        ("[ray]\nmarket_shards = 0", "ray.market_shards: expected 1 or more, was 0"),
        ("[server", "expected TOML, was"),
    ],
)
def test_wrong_setting_is_refused_with_what_was_expected(
    tmp_path: Path, toml: str, sentence: str
) -> None:
    home = write(tmp_path, toml)

    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load_settings(home, environ={})


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("ALPHAPULSE__SERVER__HTTP_PORT", "many", "server.http_port: expected int, was 'many'"),
        ("ALPHAPULSE__SERVER__PORT", "1", "unknown key server.port"),
        ("ALPHAPULSE__SERVER", "1", "expected ALPHAPULSE__SECTION__KEY"),
    ],
)
def test_wrong_variable_is_refused_with_what_was_expected(
    key: str, value: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load_settings(environ={key: value})


def test_refused_setting_ends_the_command_line_with_2() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"ALPHAPULSE__A__B": "1"})

    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "decisions", "first_training"),
    [
        ("MARKET__EXCHANGES", "kraken", True, True),
        ("FEED__GAP_S", "6", True, True),
        ("TRAINING__SEED", "8", True, True),
        ("DECISION__EXIT_THRESHOLD", "0.4", True, False),
        ("TRADING__ALLOW_SHORT", "true", True, False),
        ("RISK__STOP_R", "2", True, False),
        ("LEARNING__PROMOTE_AT", "30", True, False),
        ("SERVER__HTTP_PORT", "9000", False, False),
        ("STORAGE__FLUSH_S", "1", False, False),
        ("RAY__NUM_CPUS", "2", False, False),
    ],
)
def test_hashes_change_with_what_can_change_a_decision_or_the_first_training(
    key: str, value: str, decisions: bool, first_training: bool
) -> None:
    changed = load_settings(environ={f"ALPHAPULSE__{key}": value})

    assert (changed.hash != Settings().hash) is decisions
    assert (changed.training_hash != Settings().training_hash) is first_training


def test_a_third_symbol_is_configuration() -> None:
    environ = {
        "ALPHAPULSE__MARKET__SYMBOLS": "ETH/USDT,BTC/USDT,SOL/USDT",
        "ALPHAPULSE__MARKET__TICK_SIZES": "0.01,0.01,0.01",
        "ALPHAPULSE__MARKET__BUCKET_SIZES": "1,10,0.1",
        "ALPHAPULSE__TRADING__QUANTITY_STEPS": "0.0001,0.00001,0.001",
    }

    settings = load_settings(environ=environ)

    assert [i.symbol for i in settings.market.instruments][2] == "SOL/USDT"
    assert [i.symbol for i in settings.market.taught] == ["ETH/USDT", "BTC/USDT"]
    assert list(settings.venue_rules) == list(settings.market.symbols)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("TRADING__ALLOW_SHORT", "yes", "trading.allow_short: expected true or false, was 'yes'"),
        ("TRADING__LATENCY_MS", "1000", "trading.latency_ms: expected 0 to 999, was 1000"),
        ("TRADING__QUANTITY_STEPS", "0.1", "expected one a symbol (2), was 1"),
        ("RISK__STOP_R", "0", "risk.stop_r: expected above 0, was 0.0"),
        ("RISK__MAX_DRAWDOWN_PCT", "101", "expected above 0, at most 100, was 101.0"),
        ("RISK__MAX_DRAWDOWN_PCT", "nan", "expected above 0, at most 100, was nan"),
        ("LEARNING__HELD_OUT_SHARE", "1", "expected between 0 and 1, was 1.0"),
    ],
)
def test_money_and_risk_out_of_range_are_refused(key: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load_settings(environ={f"ALPHAPULSE__{key}": value})


def test_plain_values_are_json() -> None:
    plain = Settings().as_dict()

    assert json.loads(json.dumps(plain)) == plain
    assert plain["market"]["symbols"] == ["ETH/USDT", "BTC/USDT"]


def test_reference_lists_every_setting_with_its_default() -> None:
    documented: dict[str, dict[str, object]] = {}
    section: dict[str, object] = {}
    for line in REFERENCE.read_text().splitlines():
        if heading := re.fullmatch(r"## `\[(\w+)\]`", line):
            section = documented.setdefault(heading[1], {})
        elif row := re.fullmatch(r"\| `(\w+)` \| `(.+)` \| \S.+ \|", line):
            section[row[1]] = json.loads(row[2])

    assert documented == Settings().as_dict()


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().server.http_port = 1  # type: ignore[misc]
