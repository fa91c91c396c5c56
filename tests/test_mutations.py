"""The list of mutations follows the code: each still applies, in one place."""

import pytest

from mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}:{m.old[:20]}".replace("\n", " "))
def test_applies_once(mutation):
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
