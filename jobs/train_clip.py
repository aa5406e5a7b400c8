"""`dfn-ray train` for a cluster: ray job submit --working-dir . -- python jobs/train_clip.py RECIPE.toml

Takes what `dfn-ray train` takes, `--set section.key=value` and `--dry-run` included. Stop the job and
submit it again: it goes on from its last checkpoint.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
