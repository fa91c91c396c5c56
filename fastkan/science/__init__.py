"""Hypotheses about data and models: what KAN 2.0 (arXiv 2408.10205) calls the way from KANs to science and back."""

from .datasets import create_dataset, create_dataset_from_data
from .derivatives import batch_hessian, batch_jacobian
from .feynman import feynman_names, get_feynman_dataset
from .mlp import MLP

__all__ = [
    "MLP", "batch_hessian", "batch_jacobian", "create_dataset", "create_dataset_from_data", "feynman_names",
    "get_feynman_dataset",
]  # fmt: skip
