"""A script in several processes of one gloo group."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
START = """
import copy, sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

store, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
"""
# Processes wait for one another, since one that ends resets the connections of a slower one; and end by _exit, since
# threads of torch may abort a process while it ends.
END = """
import os, time
ended = dist.FileStore(store + "_end", world)
ended.add("processes", 1)
while ended.add("processes", 0) < world:
    time.sleep(0.01)
os._exit(0)
"""


def run(code: str, folder: Path, count: int = 2) -> None:
    """Run the code after START in `count` processes; all have to end without an error, within two minutes."""
    script = folder / f"process_{count}.py"
    script.write_text(START + code + END)
    store = folder / f"store_{count}"
    for path in folder.glob(f"{store.name}*"):
        path.unlink()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, str(script), str(store)]
    ranks = [subprocess.Popen([*command, str(n), str(count)], env=environment) for n in range(count)]
    try:
        assert [process.wait(120) for process in ranks] == [0] * count
    finally:
        for process in ranks:
            process.kill()
