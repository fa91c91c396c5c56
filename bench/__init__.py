"""Benchmarks: `python -m bench` measures and writes bench/results/cpu/*.csv, then makes the report from these alone."""
