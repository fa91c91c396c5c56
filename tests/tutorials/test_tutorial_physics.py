"""pykan's tutorials Physics 1 to 4 and Community 1: the same tasks, smaller where they take long, through its names."""

import pytest

from bench.tasks import physics

pytestmark = pytest.mark.slow


def test_physics_1_lagrangian(kan):
    found = physics.lagrangian(kan)
    assert found["loss"] < 1e-3 < found["before"] and found["error of the Lagrangian"] < 0.01


def test_physics_2a_conservation_law(kan):
    found = physics.conservation_law(kan)
    assert found["names"] == [["x^2", "x^2"]]
    assert found["factors"][0] == pytest.approx(found["factors"][1], rel=1e-3)


def test_physics_2b_conservation_law_in_2d(kan):
    physics.conservation_law_in_2d(kan)


@pytest.mark.parametrize("kind", ["KAN", "MLP"])
def test_physics_3_black_hole(kan, kind):
    physics.black_hole(kan, kind)


def test_physics_4a_constitutive_law(kan):
    found = physics.constitutive_law(kan)
    assert found["linear losses"][-1] < found["linear losses"][0]
    assert found["inputs"] == [0, 1, 2, 3] and found["names"] == [["log", "x^2", "x^2", "x^2"]]


def test_physics_4b_constitutive_law_with_prior(kan):
    found = physics.constitutive_law_with_prior(kan)
    assert found["test loss"] < found["linear"]


def test_physics_4c_constitutive_law_without_prior(kan):
    physics.constitutive_law_without_prior(kan)


def test_community_1_navier_stokes(kan):
    found = physics.navier_stokes(kan)
    assert found["loss"] < found["before"]
