"""`dfn-ray train` as a job on a Ray cluster.

    ray job submit --working-dir . -- python jobs/train_clip.py RECIPE.toml

Takes the arguments of `dfn-ray train`, `--set section.key=value` and `--dry-run` included.
To resume a stopped job from its last checkpoint, submit it again.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
