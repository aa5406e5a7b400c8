"""`dfn-ray evaluate` as a job on a Ray cluster.

    ray job submit --working-dir . -- python jobs/evaluate_clip.py RECIPE.toml

Takes the arguments of `dfn-ray evaluate`, `--set section.key=value` and `--dry-run` included.
Sets that have a result are skipped when the job is submitted again.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
