"""The gateway under Ray Serve: replicas of it, on the nodes of a Ray cluster."""
