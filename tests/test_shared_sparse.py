"""csrc/basis/sparse.h: the registers and metadata of lanes, decoded by the PTX ISA's tables, give back the window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

shared = pytest.importorskip("fastkan_testing", reason="not built: `make test` builds it")

ROWS, COLUMNS = 16, 32


def decoded(numbers: list, metadata: list[int]) -> list[list[int]]:
    """The operand [16, 32] of mma.sp.m16n8k32, 16-bit, sparsity selector 0.

    Of lane 4 g + t register 0 is row g, register 1 row g + 8, both of columns 4 t to 4 t + 3; registers 2 and 3 are
    the same 16 columns on. The metadata of row g is in bits 0-15, that of row g + 8 in bits 16-31, of columns 0-15 in
    lane 4 g, of 16-31 in lane 4 g + 1; the lower place of four columns in the lower two bits.
    """
    matrix = [[0] * COLUMNS for _ in range(ROWS)]
    for g in range(8):
        for t in range(4):
            for register, (row, column) in enumerate(
                ((g, 4 * t), (g + 8, 4 * t), (g, 4 * t + 16), (g + 8, 4 * t + 16))
            ):
                word = metadata[4 * g + (column >= 16)] >> (16 if row >= 8 else 0)
                bits = word >> (column % 16) & 0xF
                low, high = bits & 3, bits >> 2
                assert low < high, "what the hardware leaves undefined"
                pair = numbers[4 * g + t][register]
                matrix[row][column + low], matrix[row][column + high] = pair & 0xFFFF, pair >> 16
    return matrix


@st.composite
def windows(draw, degrees, functions, chunks, largest: int) -> tuple[int, int, list, list]:
    """F, K, and for each row and input the start of a window, inside or outside of 0..F-1, and its K + 1 numbers.

    functions(K): range of F; chunks(F, K): chunks per input, of 8; largest: the largest number.
    """
    degree = draw(degrees)
    count = draw(st.integers(*functions(degree)))
    inputs = draw(st.integers(1, 8 // chunks(count, degree)))
    begin = st.integers(-degree, count - 1)
    begins = [[draw(begin) for _ in range(inputs)] for _ in range(ROWS)]
    number = st.integers(1, largest)
    numbers = [
        [[draw(number) if k <= degree else 0 for k in range(4)] for _ in range(inputs)] for _ in range(ROWS)
    ]  # fmt: skip
    return count, degree, begins, numbers


@pytest.mark.parametrize("selected", [False, True])
@given(windows(st.integers(1, 3), lambda _: (5, 32), lambda f, _: -(-f // 4), 0x7FFF))
def test_register_layout(selected, drawn):
    """Also of numbers picked by selectors, which take non-negative ones."""
    functions, _, begins, numbers = drawn
    if not selected:
        numbers = [[[number and 0xFFFF - number for number in window] for window in row] for row in numbers]
    matrix = decoded(*shared.sparse_fragment(begins, numbers, functions, selected))
    chunks = -(-functions // 4)
    expected = [[0] * COLUMNS for _ in range(ROWS)]
    for row in range(ROWS):
        for i, (begin, window) in enumerate(zip(begins[row], numbers[row], strict=True)):
            for k, number in enumerate(window):
                f = begin + k
                if 0 <= f < 4 * chunks:  # beyond F coefficients are zeros
                    expected[row][4 * (i * chunks + f % chunks) + f // chunks] = number
    assert matrix == expected


# tf32


def decoded_tf32(numbers: list, metadata: list[int]) -> list[list[int]]:
    """The operand [16, 16] of mma.sp.m16n8k16, tf32, sparsity selector 0.

    Of lane 4 g + t register 0 is row g, register 1 row g + 8, both of columns 2 t and 2 t + 1; registers 2 and 3 are
    the same 8 columns on. The metadata of row g is in bits 0-15, that of row g + 8 in bits 16-31, of columns 0-7 in
    lane 4 g, of 8-15 in lane 4 g + 1; 0b0100 is the first of two columns, 0b1110 the second.
    """
    matrix = [[0] * 16 for _ in range(ROWS)]
    for g in range(8):
        for t in range(4):
            for register, (row, column) in enumerate(((g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8))):
                word = metadata[4 * g + (column >= 8)] >> (16 if row >= 8 else 0)
                bits = word >> (column % 8 * 2) & 0xF
                assert bits in (0b0100, 0b1110), "what the hardware leaves undefined"
                matrix[row][column + (bits == 0b1110)] = numbers[4 * g + t][register]
    return matrix


def tf32_chunks(functions: int, degree: int) -> int:
    return max(-(-functions // 2), degree + 1)


@given(windows(st.integers(2, 3), lambda k: (k + 1, 16), tf32_chunks, 0xFFFFFFFF))
def test_tf32_register_layout(drawn):
    functions, degree, begins, numbers = drawn
    matrix = decoded_tf32(*shared.tf32_fragment(begins, numbers, functions, degree))
    chunks = tf32_chunks(functions, degree)
    expected = [[0] * 16 for _ in range(ROWS)]
    for row in range(ROWS):
        for i, (begin, window) in enumerate(zip(begins[row], numbers[row], strict=True)):
            for k, number in enumerate(window[: degree + 1]):
                f = begin + k
                if 0 <= f < 2 * chunks:  # beyond F coefficients are zeros
                    expected[row][2 * (i * chunks + f % chunks) + f // chunks] = number
    assert matrix == expected


@pytest.mark.parametrize("degree", range(6))
def test_layers_with_sparse_products(degree):
    """From G = 2 up for cubics."""
    found = [grid_size for grid_size in range(1, 20) if shared.is_sparse(grid_size + degree, degree)]
    first = {0: 1, 1: 1, 2: 3, 3: 2, 4: 5, 5: 4}[degree]
    assert found == list(range(first, 20))
