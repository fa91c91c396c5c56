"""kan.MultKAN: the network, and the other names in the namespace of pykan's module."""

import contextlib
import copy
import glob
import os
import random

import torch
from torch import nn

with contextlib.suppress(ImportError):
    import numpy as np
with contextlib.suppress(ImportError):
    import pandas as pd
with contextlib.suppress(ImportError):
    import matplotlib.pyplot as plt
with contextlib.suppress(ImportError):
    from tqdm import tqdm
with contextlib.suppress(ImportError):
    import yaml
with contextlib.suppress(ImportError):
    import sympy
    from sympy import *  # pyright: ignore[reportWildcardImportFromLibrary]  # as in pykan
    from sympy.printing import latex

from ..library import SYMBOLIC_LIB
from ..model import MultKAN
from .hypothesis import plot_tree
from .KANLayer import KANLayer
from .LBFGS import LBFGS
from .spline import curve2coef
from .Symbolic_KANLayer import Symbolic_KANLayer

KAN = MultKAN
