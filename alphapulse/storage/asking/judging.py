"""Join inferences and predictions with what came of them, to keep those of one outcome."""

from __future__ import annotations

from alphapulse.storage.asking.conditions import Asked

_RANGE = ("run", "symbol", "model", "timeframe", "event_ns")  # what answers share with the asked
_EXAMPLE = ("inference_id", "version", "state", "hit")
_ANSWER = ("inference_id", "timeframe", "level", "version", "hit", "reason")
# The newest definitions count; an inference that was concluded has no pending answers.
_EXAMPLES = """
  SELECT inference_id, arg_max(state, version) AS state, arg_max(coalesce(hit, -1), version) AS hit
  FROM {examples} GROUP BY inference_id"""
_ANSWERS = """
  SELECT inference_id, timeframe, level, arg_max(coalesce(hit, -1), version) AS hit,
    arg_max(reason, version) AS reason
  FROM {outcomes} GROUP BY inference_id, timeframe, level"""
_OF_INFERENCES = {
    "hit": "e.state = 'resolved' AND e.hit >= 0.5",
    "missed": "e.state = 'resolved' AND e.hit >= 0 AND e.hit < 0.5",
    "void": "e.state = 'void'",
    "pending": "e.state IS NULL",
}
_OF_PREDICTIONS = {
    "hit": "o.hit = 1",
    "missed": "o.hit = 0",
    "void": "o.reason = 'void' OR (o.inference_id IS NULL AND e.state IS NOT NULL)",
    "pending": "o.inference_id IS NULL AND e.state IS NULL",
}


def needed(asked: Asked) -> list[Asked]:
    """Return what of other tables says which outcome the rows asked for have."""
    where = {name: asked.where[name] for name in _RANGE if name in asked.where}
    shared = {name: wanted for name, wanted in where.items() if name != "timeframe"}
    examples = Asked("examples", shared, columns=_EXAMPLE)
    if asked.table == "inferences":
        return [examples]
    return [examples, Asked("outcomes", where, columns=_ANSWER)]


def judged_sql(asked: Asked, rows: str, answers: dict[str, str]) -> str:
    """Return a SELECT of the rows that have the outcome asked for.

    Args:
        asked: with an outcome.
        rows: a relation of the rows before that, of all columns asked for.
        answers: a relation of what `needed` asks for, by table.
    """
    names = ", ".join(f"r.{name}" for name in asked.stored)
    examples = f"({_EXAMPLES.format(examples=answers['examples'])})"
    if asked.table == "inferences":
        return (
            f"SELECT {names} FROM {rows} r LEFT JOIN {examples} e ON e.inference_id = r.id "
            f"WHERE {_OF_INFERENCES[asked.outcome or '']}"
        )
    outcomes = f"({_ANSWERS.format(outcomes=answers['outcomes'])})"
    return (
        f"SELECT {names} FROM {rows} r LEFT JOIN {examples} e USING (inference_id) "
        f"LEFT JOIN {outcomes} o USING (inference_id, timeframe, level) "
        f"WHERE {_OF_PREDICTIONS[asked.outcome or '']}"
    )
