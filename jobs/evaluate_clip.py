"""`dfn-ray evaluate` for a cluster: ray job submit --working-dir . -- python jobs/evaluate_clip.py RECIPE.toml

Takes what `dfn-ray evaluate` takes, `--set section.key=value` and `--dry-run` included. Stop the job and
submit it again: sets with a result are skipped.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
