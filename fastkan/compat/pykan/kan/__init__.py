"""What `from kan import *` gives. Modules of pykan's names on fastkan: install makes them kan, kan.utils, and so on."""

from .MultKAN import *
from .utils import *
