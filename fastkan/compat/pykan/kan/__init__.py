"""The names of `from kan import *`. These modules have pykan's names; install() imports them as kan, kan.utils, ..."""

from .MultKAN import *
from .utils import *
