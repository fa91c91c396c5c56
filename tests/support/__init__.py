"""Problems, models, checks and the like that several test files use; their assertions are rewritten as in tests."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{file.stem}" for file in Path(__file__).parent.glob("[a-z]*.py")))
