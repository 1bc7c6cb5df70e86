"""The front door: which commands there are, in which order; each stands in `alphapulse.commands`.

Everything heavy is imported inside the command that needs it: `--help` answers in about 0.1 s.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

import typer

from alphapulse.commands import collecting, history, learning, lookahead, running, settings, trading
from alphapulse.domain.errors import AlphaPulseError

app = typer.Typer(
    name="alphapulse",
    help="A self-improving trading cluster: it learns from its own answered predictions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # drawing help with rich takes longer than everything else together
)
for command in (
    *(running.up, running.down, running.status, running.doctor, running.errors, running.backtest),
    *(collecting.recordings, collecting.download, collecting.record),
    lookahead.lookahead,
    *(learning.train, learning.sweep),
    *(trading.halt, trading.resume, trading.orders, trading.positions),
):
    app.command()(command)
asked = typer.Typer(help="Ask the inference history.", no_args_is_help=True)
asked.command()(history.query)
asked.command()(history.show)
asked.command()(history.verify)
asked.command()(history.stats)
asked.command()(history.sql)
asked.command()(history.prune)
config = typer.Typer(help="Show and check the settings.", no_args_is_help=True)
config.command()(settings.show)
config.command()(settings.validate)
models = typer.Typer(help="See who answers, promote a checkpoint, go back.", no_args_is_help=True)
models.command("list")(learning.list_models)
models.command()(learning.promote)
models.command()(learning.rollback)
app.add_typer(asked, name="history")
app.add_typer(config, name="config")
app.add_typer(models, name="models")


def main() -> NoReturn:
    """Run the command line; an error of ours is one sentence on stderr and its own exit code."""
    try:
        app(standalone_mode=True)
    except AlphaPulseError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": error.code, "message": str(error)}))
        print(f"{error.code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
