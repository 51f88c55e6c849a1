"""Replicas that follow the load: a real Prometheus, real gateways, and the rules of the HPA."""
