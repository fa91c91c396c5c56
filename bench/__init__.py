"""Benchmarks: `python -m bench` measures and writes CSV files in bench/results, then makes the report from these alone."""
