"""Peers of the benchmarks, scripts run by the interpreter of .venv-bench and by no other."""
