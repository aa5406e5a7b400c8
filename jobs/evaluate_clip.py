"""`dfn-ray evaluate` as a Ray job.

    ray job submit --working-dir . -- python jobs/evaluate_clip.py RECIPE.toml

Takes the arguments of `dfn-ray evaluate`, including `--set section.key=value` and `--dry-run`. Stop
the job and submit it again: sets with a result are skipped.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
