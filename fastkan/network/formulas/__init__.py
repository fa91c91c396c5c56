"""Symbolic formulas: fits of functions to edges, expressions, symbolic regression, and networks from expressions."""
