"""The Serve graph: the models as own deployments behind an ingress that holds none."""
