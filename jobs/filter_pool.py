"""`dfn-ray filter` for a cluster: ray job submit --working-dir . -- python jobs/filter_pool.py RECIPE.toml

Takes what `dfn-ray filter` takes, `--set section.key=value` and `--dry-run` included. Stop the job and
submit it again: it goes on where it stopped.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["filter", *sys.argv[1:]])
