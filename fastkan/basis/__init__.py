"""Basis families in plain PyTorch: the features Phi_f(x) that a layer contracts with its coefficients."""
