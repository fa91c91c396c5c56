"""Benchmarks: `python -m bench` measures, writes CSV files in bench/results, and makes the report from these alone."""
