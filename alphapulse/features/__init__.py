"""The one feature path of live, replay, backtest and training."""
