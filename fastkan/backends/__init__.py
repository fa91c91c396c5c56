"""One file per backend: the functions of reference.py, and `missing(device_type, dtypes, family)`, why not, or None."""
