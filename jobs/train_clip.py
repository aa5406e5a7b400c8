"""`dfn-ray train` as a Ray job.

    ray job submit --working-dir . -- python jobs/train_clip.py RECIPE.toml

Takes the arguments of `dfn-ray train`, including `--set section.key=value` and `--dry-run`. Stop
the job and submit it again: it resumes from its last checkpoint.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
