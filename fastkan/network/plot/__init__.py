"""Plots: network diagrams, single edges, training curves and the interactive page."""
