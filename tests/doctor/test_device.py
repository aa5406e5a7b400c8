from __future__ import annotations

import subprocess
import sys

from dfn_ray.testing.random_networks import TINY, save_random_network

OUT_OF_MEMORY = """
import resource, sys
from dfn_ray.network.packed import pack_network
from dfn_ray.config import Network, Scorers
from dfn_ray.doctor.one_batch import try_batch
packed = pack_network(Network(model="local-dir:" + sys.argv[1]))
scorers = Scorers(threads=1, batch_size=64)
assert try_batch([packed], scorers, 1).fits == 1
now = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + 150 * 2**20,) * 2)
trial = try_batch([packed], scorers, 64)
print(trial.fits, trial.used_bytes > 0)
"""


def test_a_batch_that_runs_out_of_memory_is_halved_until_it_fits(tmp_path):
    wide = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 512}}
    folder = save_random_network(tmp_path / "wide", wide, seed=0)
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fits, used = done.stdout.split()[-2:]
    assert int(fits) in (1, 2, 4, 8, 16, 32)
    assert used == "True"
