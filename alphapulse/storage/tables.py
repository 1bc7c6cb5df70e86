"""The tables of the history: their columns by name and type, whatever keeps them.

Times are int64 `*_ns` UTC; an array is its bytes beside its layout, such as `<f4[48]`; lists and
mappings are JSON. A float that is NaN is stored as null and read as NaN again; every other float
keeps its bits.
"""

from __future__ import annotations

from collections.abc import Mapping

SCHEMA_VERSION = 2  # of the columns; an older row lacks the newer ones: they are null

# Name and type of every column, in order. A row's `event_ns` is the decision that first showed it.
COLUMNS: Mapping[str, Mapping[str, type]] = {
    "inferences": {
        **dict.fromkeys(("id", "run"), str),
        "schema_version": int,
        **dict.fromkeys(("trace_id", "symbol", "reference", "model", "version"), str),
        **dict.fromkeys(("event_ns", "received_ns", "decided_at_ns", "window_version"), int),
        "input_hash": str,
        "spec_version": int,
        **dict.fromkeys(("config_hash", "action"), str),
        **dict.fromkeys(("p_buy", "p_sell", "p_hold", "confidence", "utility_r"), float),
        "hidden": bytes,
        **dict.fromkeys(("hidden_layout", "weights", "decision_action"), str),
        **dict.fromkeys(("decision_confidence", "decision_utility_r"), float),
        "decision_reason": str,
        **dict.fromkeys(("entry_threshold", "exit_threshold"), float),
        "substitutions": str,
        **dict.fromkeys(("last_trade_id", "last_book_id"), int),
        "timeframes": str,  # those the input showed a row of
        "completeness": str,  # by stream, share of its rows that were there, of the worse symbol
        "validation": str,  # codes of what the checks found; nothing if the input was whole
    },
    "predictions": {
        **dict.fromkeys(("inference_id", "run"), str),
        "schema_version": int,
        **dict.fromkeys(("symbol", "model", "timeframe"), str),
        **dict.fromkeys(("level", "event_ns"), int),
        "kind": str,
        **dict.fromkeys(("p_high", "p_low"), float),
        "pivot_ns": int,
        **dict.fromkeys(("bars_ahead", "price", "move", "p_done", "confidence"), float),
    },
    "packages": {
        "run": str,
        "schema_version": int,
        **dict.fromkeys(("symbol", "reference"), str),
        **dict.fromkeys(("event_ns", "window_version"), int),
        "input_hash": str,
        "spec_version": int,
        "own": str,  # names of the users' indicators in the input
        "streams": str,  # the fields of each StreamRef, the forming row as its length
        "forming": bytes,  # the forming rows of all streams, one after the other
        "forming_layout": str,
        "peer_slots": str,  # the slots with a byte that is not zero; only they are in `peers`
        "peers": bytes,
        "peers_layout": str,  # of the whole table of slots
        "awake": bytes,
        "awake_layout": str,
        "account": bytes,
        "account_layout": str,
        "substitutions": str,
        "scale": bytes,  # low and high by symbol
        "scale_layout": str,
    },
    "rows": {
        "run": str,
        "schema_version": int,
        **dict.fromkeys(("symbol", "stream"), str),
        **dict.fromkeys(("ts_ns", "event_ns", "flags"), int),
        "cells": bytes,
        "cells_layout": str,
    },
    "outcomes": {
        **dict.fromkeys(("inference_id", "run"), str),
        "schema_version": int,
        **dict.fromkeys(("symbol", "model"), str),
        **dict.fromkeys(("event_ns", "known_ns"), int),
        "timeframe": str,
        **dict.fromkeys(("level", "version"), int),
        "unit": float,
        "ended_ns": int,
        **dict.fromkeys(("price", "move", "hit"), float),
        "kind": str,
        **dict.fromkeys(("bars", "p_done"), float),
        **dict.fromkeys(("action", "reason"), str),
        **dict.fromkeys(("result", "result_long", "result_short"), float),
    },
    "orders": {
        **dict.fromkeys(("order_id", "inference_id", "run"), str),
        "schema_version": int,
        "symbol": str,
        "event_ns": int,
        "purpose": str,
    },
    "examples": {
        **dict.fromkeys(("inference_id", "run"), str),
        "schema_version": int,
        **dict.fromkeys(("symbol", "model"), str),
        **dict.fromkeys(("event_ns", "known_ns", "version"), int),
        "state": str,
        **dict.fromkeys(("hit", "loss"), float),
        "stratum": str,
    },
    "training_rounds": {
        **dict.fromkeys(("id", "run"), str),
        "schema_version": int,
        **dict.fromkeys(("symbol", "model"), str),
        "event_ns": int,
        **dict.fromkeys(("trigger", "state", "champion", "challenger"), str),
        **dict.fromkeys(("num_train", "num_compared"), int),
        **dict.fromkeys(("figures", "reason", "started_at", "ended_at"), str),
        "live_ns": int,
    },
    "alerts": {
        **dict.fromkeys(("id", "run"), str),
        "schema_version": int,
        "symbol": str,
        "event_ns": int,
        **dict.fromkeys(("code", "message", "remedy", "raised_at"), str),
    },
}
# What is appended beside the inferences as it is given, see `InferenceHistory.note`.
NOTES = ("orders", "examples", "training_rounds", "alerts")
# Remark of a journal: newest event time [ns UTC] of what it does not hold, and the lake does.
LAKE_ONLY = "lake_only_ns"
BATCHED = "inferences"  # remark of a journal: how many inferences its batches hold
ALL = "ALL"  # the symbol of a row that is of no symbol alone: each is in a partition of the lake
COMPRESSED = frozenset({"streams", "forming", "peers", "substitutions", "cells"})  # in a journal
KEYS: Mapping[str, tuple[str, ...]] = {  # what is stored once, in the order of an answer
    "inferences": ("event_ns", "symbol", "model", "run"),
    "predictions": ("event_ns", "symbol", "model", "timeframe", "level", "run"),
    "packages": ("event_ns", "symbol", "run"),
    "rows": ("symbol", "stream", "ts_ns", "run"),
    "outcomes": ("event_ns", "symbol", "model", "timeframe", "level", "version", "run"),
    "orders": ("event_ns", "symbol", "order_id", "run"),
    "examples": ("event_ns", "symbol", "model", "version", "run"),
    "training_rounds": ("event_ns", "model", "id", "run"),
    "alerts": ("event_ns", "id", "run"),
}
# What numbers the rows of a table in a journal, and so its ranges in the batches.
SERIES: Mapping[str, str] = {
    "inferences": "decision",
    "predictions": "decision",
    "packages": "decision",
    "rows": "row",
    "outcomes": "outcome",
    **{table: table for table in NOTES},
}

NUMBERED: Mapping[str, str] = {  # by series, the journal's table that numbers it
    "decision": "decisions",
    "row": "closed_rows",
    "outcome": "settled",
    **{table: f"noted_{table}" for table in NOTES},
}
