"""The tasks of pykan's tutorials, as functions of the module kan, which is fastkan's or pykan's own.

tests/tutorials and bench.tutorials run the same lines: own code, smaller where the tutorial takes long. The default
dtype is float64 then.

Each returns what it reached by name: numbers, of which less is better unless the name ends in "accuracy", and whatever
else a test looks at.
"""
