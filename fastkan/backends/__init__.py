"""One file per backend. A backend has the functions of reference.py, and `missing(device_type, dtypes)`: why not, or None."""
