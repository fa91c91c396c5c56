"""The experiments of the KAN papers, one file and one command each: python -m examples.papers NAME."""
