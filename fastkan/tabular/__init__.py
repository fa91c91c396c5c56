"""Tables of a user: CSV files in, a trained network with the preparation of its columns out."""
