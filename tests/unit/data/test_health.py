"""The health of a source says what was measured, and nothing before it was."""

from __future__ import annotations

from alphapulse.data.health import SAMPLES, Health, Skew
from alphapulse.data.patience import Clocks
from alphapulse.domain.quality import Reason

MS = 1_000_000


def test_the_skew_is_the_venues_answer_against_the_middle_of_asking() -> None:
    skew = Skew()
    assert skew.ms is None

    skew.asked(1_000 * MS, 400 * MS, 600 * MS)

    assert skew.ms == 500


def test_one_slow_answer_does_not_move_the_skew() -> None:
    skew = Skew()
    for _ in range(SAMPLES - 1):
        skew.asked(100 * MS, 0, 0)

    skew.asked(9_000 * MS, 0, 0)

    assert skew.ms == 100


def test_without_an_answer_the_fastest_message_says_the_most_it_can_be() -> None:
    skew = Skew()

    for late_ms in (50, 20, 80):
        skew.heard(1_000 * MS, (1_000 + late_ms) * MS)

    assert skew.ms == -20


def test_ages_are_of_the_newest_message_and_none_before_it() -> None:
    now_s = [100.0]
    health = Health(["ETH/USDT"], Clocks(now_s=lambda: now_s[0]))

    health.of("ETH/USDT").heard("trade")
    now_s[0] = 102.5

    told = health.as_dict()["symbols"]["ETH/USDT"]
    assert told["age_s"] == {"trade": 2.5, "book": None, "candle": None}
    assert (told["delay_ms"], told["fallback"], told["down"]) == (None, False, False)


def test_the_delay_of_messages_has_the_skew_taken_out() -> None:
    health = Health(["ETH/USDT"], Clocks())
    health.skew.asked(700 * MS, 1_000 * MS, 1_000 * MS)  # the venue is 300 ms behind us

    for late_ms in (310, 330, 320):
        health.of("ETH/USDT").took(0, late_ms * MS)

    assert health.as_dict()["symbols"]["ETH/USDT"]["delay_ms"] == 20


def test_refused_messages_are_counted_by_reason() -> None:
    health = Health([], Clocks())

    health.refuse(Reason.NEGATIVE, "price -1")
    health.refuse(Reason.NEGATIVE, "price -2")

    assert health.as_dict()["quarantined"] == {"negative": 2}
    assert list(health.quarantine) == [(Reason.NEGATIVE, "price -1"), (Reason.NEGATIVE, "price -2")]
