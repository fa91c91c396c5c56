"""Search for a formula of one output among sums and products of simple functions of the inputs.

search.py tries outer functions and factors, vocabulary.py has the functions, pursuit.py finds the few of them whose
sum, or product, is the output, and constants.py fits and rounds their constants.
"""
