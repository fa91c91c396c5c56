"""Layers of a network: numeric and symbolic edges, the function library, and the shape of a network."""
