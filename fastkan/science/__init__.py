"""Scientific hypotheses about data and models: symmetry, separability, auxiliary variables.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205).
"""

from .auxiliary import augment_input, suggest_auxiliary
from .collocation import adaptive_points, boundary_points, collocation_points
from .datasets import create_dataset, create_dataset_from_data
from .derivatives import batch_hessian, batch_jacobian
from .feynman import feynman_names, get_feynman_dataset
from .mlp import MLP
from .molecule import get_molecule, get_tree_node
from .relations import Relation, relations
from .separability import (
    detect_separability,
    general_separability_score,
    separability_scores,
    test_general_separability,
    test_separability,
)
from .symmetry import get_dependence, symmetry_score, test_symmetry, test_symmetry_var
from .tree import plot_tree

__all__ = [
    "MLP", "Relation", "adaptive_points", "augment_input", "batch_hessian", "batch_jacobian", "boundary_points",
    "collocation_points", "create_dataset", "create_dataset_from_data", "detect_separability", "feynman_names",
    "general_separability_score", "get_dependence", "get_feynman_dataset", "get_molecule", "get_tree_node", "plot_tree",
    "relations", "separability_scores", "suggest_auxiliary", "symmetry_score", "test_general_separability",
    "test_separability", "test_symmetry", "test_symmetry_var",
]  # fmt: skip
