"""Check that the search for implementations sees all of the product, each promise its suite."""

from __future__ import annotations

import inspect
from pathlib import Path

from alphapulse import interfaces
from tests.contracts.finding import import_everything

SUITES = {
    "DataProvider": "test_data_provider.py",
    "Executor": "test_executor.py",
    "InferenceStore": "test_inference_store.py",
    "Model": "test_model.py",
    "Panel": "test_panel.py",
    "RiskRule": "test_risk_rule.py",
}


def test_every_module_of_the_product_can_be_imported() -> None:
    assert import_everything() == {}


def test_every_promise_has_a_suite() -> None:
    promises = {
        name
        for name, kind in vars(interfaces).items()
        if inspect.isclass(kind)
        and kind.__module__ == interfaces.__name__
        and getattr(kind, "_is_protocol", False)
    }

    assert promises == set(SUITES)
    assert [f for f in SUITES.values() if not (Path(__file__).parent / f).exists()] == []
