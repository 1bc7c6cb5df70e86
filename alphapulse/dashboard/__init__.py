"""The monitor: panels over HTTP, nothing of it needed by the cluster."""
