"""Pin what others may import from the ground and the promises: a change here touches everyone."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import alphapulse

NAMES = {
    "alphapulse.interfaces": """
        DataProvider Executor InferenceStore LearnReport Model Panel Query RiskRule
    """,
    "alphapulse.domain": "",
    "alphapulse.domain.errors": """
        AlphaPulseError CheckpointError ClusterError ConfigError HomeInUse InvalidBar InvalidEvent
        InvalidInput InvalidRecording InvalidRequest NoData PortTaken ShapeMismatch StoreError
        Unavailable
    """,
    "alphapulse.domain.inference": """
        Action Decision DecisionPoint DecisionRecord Example Forecast InputPackage MODELS Prediction
        StoredRow StreamRef Thresholds inference_id trace_id
    """,
    "alphapulse.domain.inputs": """
        AXES BOOK_COLUMNS CHANNEL CHANNELS DTYPES FIRST_OWN INPUT_PROBLEMS INPUT_SPEC
        IncompleteInput InputSpec Masks ModelInput NUM_BINS NUM_OWN PEER_FIELDS Tensor
        require_shape
    """,
    "alphapulse.domain.learning": """
        Cursor Followed Inference InferenceLabel LEVELS LabelState NAN OUTCOME_VERSION Outcome
        PastDecision Promotion RoundState ShownBar TrainingRound
    """,
    "alphapulse.domain.market": """
        Bar BarFlag BarSeries BookDelta Bools FeedGap Flags Floats Instrument Ints LOTS Mark
        MarketEvent Pivot PivotKind SECOND_NS TIMEFRAMES Timeframe Trade Trades
    """,
    "alphapulse.domain.pruning": "Pruned",
    "alphapulse.domain.quality": "EXPLAINED Explanation Reason reason_of",
    "alphapulse.domain.status": "Alert Command ErrorRow Snapshot",
    "alphapulse.domain.trading": """
        Account Approved Fill Order Position Purpose Quote Refused VenueRules ZERO decimal_of
        rounded_down
    """,
    "alphapulse.domain.windows": """
        BookSnapshot BookWindow BucketWindow Buckets CacheView MarketWindow Shown StreamWindow
    """,
    "alphapulse.config": """
        Cluster DECISIVE DecisionRules Feed Learning Market Risk Server Settings Storage TAUGHT
        Trading Training load_settings
    """,
    "alphapulse.settings.values": "PREFIX build from_environ merge",
    "alphapulse.settings.ranges": "require_possible",
}


def public_names(module: str) -> set[str]:
    """Return the names a module defines itself at its top, without those that start with `_`."""
    source = importlib.import_module(module).__file__
    assert source is not None
    names: set[str] = set()
    for node in ast.parse(Path(source).read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("module", NAMES)
def test_module_offers_exactly_its_pinned_names(module: str) -> None:
    assert public_names(module) == set(NAMES[module].split())


@pytest.mark.parametrize("module", NAMES)
def test_every_pinned_name_can_be_imported(module: str) -> None:
    imported = importlib.import_module(module)

    assert [name for name in NAMES[module].split() if not hasattr(imported, name)] == []


def test_every_file_of_the_ground_is_pinned() -> None:
    folder = Path(alphapulse.__file__).parent / "domain"
    files = {f"alphapulse.domain.{p.stem}" for p in folder.glob("*.py") if p.stem != "__init__"}

    assert files == {module for module in NAMES if module.startswith("alphapulse.domain.")}
