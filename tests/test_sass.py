"""Counts of the machine code (bench/sass.py): budgets of a step, and the way through a loop on made-up code."""

import csv

import pytest

from bench import sass, sass_model

needs_nvcc = pytest.mark.skipif(sass.missing() is not None, reason=str(sass.missing()))
pytestmark = pytest.mark.xdist_group("nvcc")

LOOP = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
	//## File "/here/kan_out.h", line 3
        /*0010*/                   ISETP.GE.AND P0, PT, R0, R1, PT ;
        /*0020*/              @P0 BRA `(.L_x_1) ;
	//## File "/here/ptx.h", line 7 inlined at "/here/right_copies.h", line 9
	//## File "/here/right_copies.h", line 9
        /*0030*/                   LDGSTS.E.BYPASS.128 [R2], [R4.64], P1 ;
        /*0040*/                   BRA `(.L_x_2) ;
.L_x_1:
        /*0050*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0060*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0070*/                   LDGSTS.E.BYPASS.128 [R2], [R4.64], P1 ;
        /*0080*/                   LDGSTS.E.BYPASS.128 [R2], [R4.64], P1 ;
.L_x_2:
        /*0090*/                   HMMA.SP.16832.F32.BF16 R4, R8, R12, R4, R3, 0x0 ;
        /*00a0*/              @!P0 BRA `(.L_x_0) ;
        /*00b0*/                   EXIT ;
"""


def way(landmarks: dict[str, int]) -> list[int]:
    return [i.address for i in sass.usual_path(sass.parsed("kernel", LOOP, 32, 0), landmarks)]


def test_the_shortest_way_that_does_the_work():
    assert way({"HMMA": 1}) == way({"HMMA": 1, "LDGSTS": 1}) == [0x10, 0x20, 0x30, 0x40, 0x90, 0xA0]
    assert way({"HMMA": 1, "LDGSTS": 2}) == [0x10, 0x20, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0]
    with pytest.raises(LookupError, match="no loop with"):
        way({"LDGSTS": 3})


def test_classes_and_bytes():
    kernel = sass.parsed("kernel", LOOP, 32, 0)
    by_address = {i.address: i for i in kernel.code}
    assert [sass.kind_of(by_address[at]) for at in (0x10, 0x30, 0x90)] == ["other", "copies", "tensor"]
    assert sass.shared_bytes(by_address[0x30]) == 512 and sass.shared_bytes(by_address[0x90]) == 0
    product = sass.Instruction(0, "", "HGMMA.SP.64x128x32.F32.BF16", "", ())
    assert sass.shared_bytes(product) == 32 * 128 * 2 // 4
    loads = [sass.Instruction(0, predicate, "LDS.64", "R2, [R4]", ()) for predicate in ("", "@!P0", "@!PT")]
    assert [sass.shared_bytes(load) for load in loads] == [256, 256, 0]  # the last one is never executed


def check(rows: list[dict]) -> None:
    """The budgets, for bf16 and cubic splines on 5 intervals."""
    numbers = ("spills", "block_bytes", "instructions", *sass.CLASSES)
    counts = {(row["walk"], row["arch"]): {name: int(row[name]) for name in numbers} for row in rows}
    for (name, arch), row in counts.items():
        assert row["spills"] == 0, (name, arch)
        if name.startswith("mma"):  # two blocks, with the 1 KB that each takes besides, in 100 KB
            assert 2 * (row["block_bytes"] + 1024) <= 100 << 10
        if name == "mma, 8 inputs":  # 1024 windows by four warps, with their copies, of which a thread starts 8
            assert row["instructions"] - row["tensor"] <= 700, (arch, row)
            assert row["copies"] <= 8 * 6, (arch, row)
        if name.startswith("wgmma producers"):
            assert row["instructions"] <= 700, (name, row)
        if name == "wgmma producers by cp.async, 8 inputs":
            assert row["copies"] <= 16 * 6, row
        if name == "wgmma consumers, 8 inputs":  # two warps of a scheduler, 512 cycles
            assert 2 * row["instructions"] <= 0.4 * 512, row


@needs_nvcc
@pytest.mark.long
@pytest.mark.parametrize("arch", ["80", "90a"])
def test_budgets(arch):
    check(list(sass.counts((arch,))))


def committed(name: str) -> list[dict]:
    with (sass.RESULTS / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_committed_counts():
    rows = committed("counts")
    assert {row["arch"] for row in rows} == {f"sm_{arch}" for arch in sass.ARCHS}
    check(rows)


def test_the_model_is_made_of_the_counts():
    expected = list(sass_model.model(committed("counts")))
    found = committed("model")
    assert len(found) == len(expected) == 6
    for row, again in zip(found, expected, strict=True):
        assert {name: row[name] for name in again if name != "measured_us"} == {
            name: str(value) for name, value in again.items() if name != "measured_us"
        }


def test_the_model_of_a_step():
    """The busiest unit bounds it; a second wave of tiles doubles the time."""
    names = {name for walks in (sass_model.MMA.spline, sass_model.MMA.base) for name, _ in walks}
    counts = [{"walk": name, "arch": "sm_80", "instructions": 2000, "shared_bytes": 128} for name in names]
    first, second = sass_model.model(counts, [(128, 8, 128), (128 * 109, 8, 128)])
    assert first["bound_by"] == "issue" and first["issue_cycles"] == 3000
    assert first["estimated_us"] == round(3000 / 1.41 / 1000, 1) and second["waves"] == 2 * first["waves"]
