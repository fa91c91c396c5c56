"""pykan's tutorials Physics 1 to 4 and Community 1: the same tasks, smaller where they take long, through its names."""

import pytest

pytestmark = pytest.mark.long


def test_physics_1_lagrangian(task):
    found = task("Physics 1")
    assert found["loss"] < 1e-3 < found["before"] and found["error of the Lagrangian"] < 0.01


def test_physics_2a_conservation_law(task):
    found = task("Physics 2A")
    assert found["names"] == [["x^2", "x^2"]]
    assert found["factors"][0] == pytest.approx(found["factors"][1], rel=1e-3)


def test_physics_2b_conservation_law_in_2d(task):
    task("Physics 2B")


@pytest.mark.parametrize("kind", ["KAN", "MLP"])
def test_physics_3_black_hole(task, kind):
    task(f"Physics 3, {kind}")


def test_physics_4a_constitutive_law(task):
    found = task("Physics 4A")
    assert found["linear losses"][-1] < found["linear losses"][0]
    assert found["inputs"] == [0, 1, 2, 3] and found["names"] == [["log", "x^2", "x^2", "x^2"]]


def test_physics_4b_constitutive_law_with_prior(task):
    found = task("Physics 4B")
    assert found["test loss"] < found["linear"]


def test_physics_4c_constitutive_law_without_prior(task):
    task("Physics 4C")


def test_community_1_navier_stokes(task):
    found = task("Community 1")
    assert found["loss"] < found["before"]
