"""Training: data, the objective, optimizers, penalties and the training log."""
