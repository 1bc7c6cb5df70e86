"""The notebooks run from top to bottom on the recordings and show what they say they show."""

from __future__ import annotations

import ast
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NAMES = ("01_market_tour", "02_pivots", "03_inference_history")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


class Run:
    """A notebook that was run, and its namespace."""

    def __init__(self, name: str, folder: Path) -> None:
        self.notebook = read(name)
        kernel = AsyncKernelManager(
            kernel_name="python3",
            transport="ipc",  # no port is opened
            connection_file=str(folder / "kernel.json"),
        )
        self._client = NotebookClient(
            self.notebook, km=kernel, timeout=120, resources={"metadata": {"path": str(FOLDER)}}
        )
        # the notebook finds this checkout, and leaves nothing in the home of who runs it
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IPYTHONDIR": str(folder),
            "OMP_NUM_THREADS": "1",
        }

    def execute(self, wanted: dict[str, str]) -> dict[str, Any]:
        """Run every cell; raise at the first error; return what expressions are worth after it."""
        asked = ", ".join(f"{name!r}: {expression}" for name, expression in wanted.items())
        cell = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{asked}}}))")
        self.notebook.cells.append(cell)
        self._client.execute(cleanup_kc=True, env=self._environ)
        self.notebook.cells.pop()
        found: dict[str, Any] = json.loads(cell.outputs[0].text)
        return found


def executed(name: str, wanted: dict[str, str]) -> tuple[nbformat.NotebookNode, dict[str, Any]]:
    # a short path: that of a socket has at most some hundred characters
    with tempfile.TemporaryDirectory(prefix="nb") as folder:
        run = Run(name, Path(folder))
        return run.notebook, run.execute(wanted)


def require_clean(notebook: nbformat.NotebookNode) -> None:
    """Fail if a cell of code ended with an error or complained."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error", cell.id
            assert output.get("name") != "stderr", (cell.id, output.text)


def figures_of(notebook: nbformat.NotebookNode) -> Iterator[dict[str, Any]]:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            found = output.get("data", {}).get("application/vnd.plotly.v1+json")
            if found is not None:
                yield found


TOUR = {
    "tape": "tape.name",
    "events": "cache.num_events",
    "num_trades": "len(trades.ts_ns_N)",
    "shapes": "{name: list(getattr(fed, name).shape) for name in fed.spec.shapes()}",
    "first": "warm_up['first value'].tolist()",
    "needs": "warm_up['needs'].tolist()",
    "warming": "[int(((f & BarFlag.WARMUP) != 0).sum()) for f in (flags_T, holed_flags_T)]",
    "back": "back.tolist()",
    "recorded": "recorded.tolist()",
    "gaps": "dict(zip(candle_gaps.file, candle_gaps.missing.astype(int).tolist()))",
    "known": "book_known",
    "correlation": "same.correlation.to_dict()",
}


def test_market_tour_runs_and_its_numbers_hold_together(recordings: Path) -> None:
    notebook, found = executed("01_market_tour", TOUR)

    require_clean(notebook)
    assert len(list(figures_of(notebook))) == 5
    assert found["tape"] == recordings.name
    assert found["events"] > 20_000
    assert found["num_trades"] > 1_000
    assert found["shapes"]["bars_SFTC"] == [2, 4, 300, 32]
    assert found["shapes"]["book_STB"] == [2, 300, 50]
    assert found["first"] == [needed - 1 for needed in found["needs"]]
    assert found["warming"][1] == 2 * found["warming"][0] > 0
    assert found["back"] == found["recorded"]
    assert found["gaps"] == {f"candles-1h-{name}.parquet": 1 for name in ("BTCUSDT", "ETHUSDT")}
    assert found["known"]["ETH/USDT"]["ofi_levels"] == 1
    assert found["known"]["BTC/USDT"]["bins"] < 0.5
    assert found["correlation"]["ofi_levels"] > found["correlation"]["ofi"] > 0.5


PIVOTS = {
    "num_pivots": "num_pivots.tolist()",
    "delay": "[delay.loc[(t, l), 'median'] for t in ('1m', '1h', '1d') for l in (1, 2, 3)]",
    "p90": "delay.p90.loc['1m'].tolist()",
    "differs": "repaint['differs %'].loc['1m'].tolist()",
    "is_prefix": "is_prefix",
    "streamed": "[streamed[name] for name in ('p', 'r1', 's3', 'fib_r1', 'woodie_p')]",
    "points": "[points.classic[name] for name in ('p', 'r1', 's3')]"
    " + [points.fibonacci['r1'], points.woodie['p']]",
    "day": "[high, low, close]",
    "trend": "trends.trend.tolist()",
    "shown": "sorted({p.level for p in highest.values()})",
    "lines": "[[p.pivot_ns, p.confirm_ns] for p in highest.values()]",
}


def test_pivots_runs_and_shows_what_was_known_when(recordings: Path) -> None:
    notebook, found = executed("02_pivots", PIVOTS)

    require_clean(notebook)
    assert len(list(figures_of(notebook))) == 2
    assert found["num_pivots"] == [14101, 3728, 977, 256, 70]
    assert found["delay"] == [1, 6, 28, 1, 7, 28, 1, 7, 27]
    assert found["p90"] == sorted(found["p90"])
    first, second, third, fourth, fifth = found["differs"]
    assert max(first, second) < 5 < third < 50 < fourth < fifth
    assert found["is_prefix"]
    assert found["streamed"] == pytest.approx(found["points"], rel=1e-15)
    high, low, close = found["day"]
    assert found["points"][0] == pytest.approx((high + low + close) / 3, rel=1e-15)
    assert set(found["trend"]) <= {-1, 0, 1}
    assert found["shown"] == [1, 2, 3, 4, 5]
    traces = next(figures_of(notebook))["data"]
    ends = [at for trace in traces if trace.get("mode") == "lines" for at in trace["x"]]
    drawn = [[pd.Timestamp(at).value for at in ends[i : i + 2]] for i in range(0, len(ends), 3)]
    assert sorted(drawn) == sorted(found["lines"])  # what was known when, to the second


HISTORY = {
    "fed": "len(fed)",
    "appended": "counters['appended']",
    "inferences": "len(inferences)",
    "found": "found.to_dict()",
    "ids": "[len(ids), len(set(ids))]",
    "by_timeframe": "by_timeframe.set_index('timeframe').forecasts.to_dict()",
    "is_same": "is_same",
    "hashes": "list(hashes)",
    "verified": "[verified.checked, len(verified.damaged), len(verified.missing)]",
    "joined": "len(joined)",
    "newest": "[dollars_T[-1], rebuilt.price]",
    "bytes_each": "bytes_each",
}


def test_inference_history_runs_and_gives_back_what_was_fed(recordings: Path) -> None:
    notebook, found = executed("03_inference_history", HISTORY)

    require_clean(notebook)
    assert len(list(figures_of(notebook))) == 3
    assert found["fed"] == found["appended"] == 600
    assert found["inferences"] == 300
    rows = found["found"]
    assert rows["all"] == 3 * 600
    assert rows["of the last 100 s"] == 3 * 200
    assert 400 < rows["forecasts of 1s"] < 600  # none until enough seconds were seen
    parts = ("of these that came true", "missed", "not answered yet")
    assert sum(rows[name] for name in parts) == rows["forecasts of 1s"]
    assert found["joined"] == rows["of these that came true"] + rows["missed"] > 50
    assert found["ids"] == [3 * 600, 3 * 600]
    seconds = {"1s": rows["forecasts of 1s"]}
    assert found["by_timeframe"] == dict.fromkeys(("1m", "1h", "1d"), 600) | seconds
    assert all(found["is_same"].values())
    assert len(set(found["hashes"])) == 1
    assert found["verified"] == [300, 0, 0]
    assert found["newest"][0] == pytest.approx(found["newest"][1], rel=1e-6)
    assert found["bytes_each"] < 10_000


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_hold_no_outputs_no_counts_and_no_paths(name: str) -> None:
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None
        assert cell.metadata == {}
        texts = [node.value for node in ast.walk(_parsed(cell.source)) if _is_text(node)]
        assert not [text for text in texts if text.startswith(("/", "~"))]
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(part.isalpha() for id in ids for part in id.split("-"))  # chosen, not drawn


def test_every_notebook_is_named_here_and_in_the_readme() -> None:
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == set(NAMES)
    told = (FOLDER / "README.md").read_text()
    assert all(name in told for name in NAMES)


def _parsed(source: str) -> ast.AST:
    return compile(source, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
