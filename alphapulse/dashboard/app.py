"""The monitor's page: `streamlit run` executes this file anew for every visitor.

It reads ALPHAPULSE_API (base address of the API) and ALPHAPULSE_HOME (whose file `token` opens it).
Each part refreshes by itself; closing the page stops nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import streamlit as st

from alphapulse.dashboard import wording
from alphapulse.dashboard.client import Client
from alphapulse.dashboard.panels.account import AccountPanel, EquityPanel, OrdersPanel, RiskPanel
from alphapulse.dashboard.panels.decisions import DecisionsPanel
from alphapulse.dashboard.panels.learning import AccuracyPanel, TrainingPanel
from alphapulse.dashboard.panels.market import BookPanel, CandlesPanel
from alphapulse.dashboard.panels.status import AlertsPanel, ErrorsPanel, PricesPanel, StatusPanel
from alphapulse.dashboard.panels.steering import HaltPanel, ProcessesPanel, ThresholdsPanel
from alphapulse.dashboard.style import STYLE
from alphapulse.domain.status import Snapshot
from alphapulse.interfaces import Panel

API, HOME = "ALPHAPULSE_API", "ALPHAPULSE_HOME"


@st.cache_resource(on_release=Client.close, show_spinner=False)
def _client(api_url: str, token: str) -> Client:
    return Client(api_url, token)


def _connected() -> Client:
    path = Path(os.environ[HOME]) / "token"
    token = path.read_text().strip() if path.exists() else ""
    return _client(os.environ[API], token)


def _snapshot() -> Snapshot:
    return _connected().snapshot(st.session_state.get("symbol"))


def _show(panel: Panel, snapshot: Snapshot, canvas: Any, title: str = "") -> None:
    """Draw a panel; what a person asked for on it is sent, and the page shows what came of it."""
    if title:
        canvas.markdown(f"##### {title}")
    command = panel.render(snapshot, canvas)
    if command is not None:
        st.session_state["reply"] = _connected().send(command)
        st.rerun()


@st.fragment(run_every=1.0)
def _overview() -> None:
    snapshot = _snapshot()
    _show(StatusPanel(), snapshot, st)
    _show(AlertsPanel(), snapshot, st)
    left, right = st.columns([2, 4])
    _show(PricesPanel(), snapshot, left)
    _show(AccountPanel(), snapshot, right)


@st.fragment(run_every=2.0)
def _market() -> None:
    snapshot = _snapshot()
    left, right = st.columns([4, 1])
    _show(CandlesPanel(st.session_state), snapshot, left)
    _show(BookPanel(), snapshot, right, "Order book")


@st.fragment(run_every=2.0)
def _account() -> None:
    snapshot = _snapshot()
    _show(DecisionsPanel(), snapshot, st, "Decisions")
    left, right = st.columns(2)
    _show(EquityPanel(), snapshot, left, "Equity")
    _show(RiskPanel(), snapshot, right, "Risk")
    _show(OrdersPanel(), snapshot, st)


@st.fragment(run_every=2.0)
def _learning() -> None:
    snapshot = _snapshot()
    _show(TrainingPanel(), snapshot, st, "Training")
    left, right = st.columns(2)
    _show(AccuracyPanel(), snapshot, left, "Accuracy")
    _show(ErrorsPanel(), snapshot, right, "Errors")


@st.fragment(run_every=2.0)
def _steering() -> None:
    snapshot = _snapshot()
    reply = st.session_state.get("reply")
    if reply is not None:
        (st.success if reply.is_done else st.error)(wording.literal(reply.text))
    _show(ThresholdsPanel(st.session_state), snapshot, st, "Thresholds")
    _show(HaltPanel(), snapshot, st, "Trading")
    _show(ProcessesPanel(), snapshot, st, "Processes")


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="AlphaPulse", layout="wide", initial_sidebar_state="expanded")
    st.html(STYLE)
    missing = [name for name in (API, HOME) if not os.environ.get(name)]
    if missing:
        st.error(
            f"{' and '.join(missing)}: expected the address of the API and the home, was not set; "
            "start the page with `alphapulse up`"
        )
        return
    with st.sidebar:
        st.markdown("### AlphaPulse")
        _steering()
    _overview()
    _market()
    _account()
    _learning()


if __name__ == "__main__":
    main()
