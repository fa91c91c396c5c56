"""One file per backend: the functions of reference.py, and `missing`, the reason why it cannot serve a call or None."""
