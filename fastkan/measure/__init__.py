"""Measurements: correctness, timing, layers to compare with, provenance, tables; for fastkan/cli and bench/."""
