"""Importance scores of edges, nodes and inputs."""
