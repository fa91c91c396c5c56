"""Basis families in plain PyTorch: the features Phi_f(x), which a layer contracts with its coefficients."""
