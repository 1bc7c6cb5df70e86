"""Check who answers when: a function of event time, durable promotions, and the way back."""

from __future__ import annotations

import pytest

from alphapulse.domain.errors import InvalidRequest
from alphapulse.domain.learning import Promotion
from alphapulse.models.versions import Versions

START = {"cnn": "c0", "rl": "r0", "moe": "m0"}


def promoted(versions: Versions, checkpoint: str, *, after_ns: int) -> Promotion:
    promotion = versions.promotion("run", "cnn", checkpoint, after_ns=after_ns, reason="better")
    versions.add(promotion)
    return promotion


def test_promotion_answers_from_the_next_instant_on_and_not_before() -> None:
    versions = Versions(START, [])

    promotion = promoted(versions, "c1", after_ns=100)

    assert versions.at(100) == START
    assert versions.at(101) == START | {"cnn": "c1"}
    assert (promotion.before, promotion.event_ns) == ("c0", 101)
    assert (versions.num_live(100), versions.num_live(101)) == (0, 1)


def test_promotions_read_again_give_the_same_versions() -> None:
    versions = Versions(START, [])
    kept = [promoted(versions, name, after_ns=ns) for name, ns in (("c1", 5), ("c2", 9))]

    again = Versions(START, reversed(kept))

    assert [again.at(ns) for ns in range(12)] == [versions.at(ns) for ns in range(12)]


def test_second_promotion_at_one_instant_comes_after_the_first() -> None:
    versions = Versions(START, [])
    first, second = (promoted(versions, name, after_ns=5) for name in ("c1", "c2"))

    assert first.event_ns < second.event_ns
    assert versions.at(10)["cnn"] == "c2"


def test_way_back_is_the_checkpoint_before() -> None:
    versions = Versions(START, [])
    promoted(versions, "c1", after_ns=5)
    promoted(versions, "c2", after_ns=6)

    assert versions.before("cnn") == "c1"


def test_going_back_twice_ends_where_the_run_began_and_not_where_it_went_wrong() -> None:
    versions = Versions(START, [])
    for ns, name in ((5, "c1"), (6, "c2")):
        promoted(versions, name, after_ns=ns)

    went = []
    for ns in (7, 8):
        went.append(versions.before("cnn"))
        promoted(versions, went[-1], after_ns=ns)

    assert went == ["c1", "c0"]
    with pytest.raises(InvalidRequest, match="to go back on"):
        versions.before("cnn")


@pytest.mark.parametrize(
    ("model", "checkpoint", "said"),
    [("cnn", "c0", "it answers already"), ("lstm", "c1", "expected one of cnn, rl, moe")],
)
def test_promotion_that_changes_nothing_is_refused(model: str, checkpoint: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Versions(START, []).promotion("run", model, checkpoint, after_ns=1, reason="")


def test_way_back_without_a_promotion_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="expected a promotion in this run"):
        Versions(START, []).before("rl")
