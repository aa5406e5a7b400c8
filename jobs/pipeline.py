"""`dfn-ray pipeline` as a job on a Ray cluster.

    ray job submit --working-dir . -- python jobs/pipeline.py RECIPE.toml

Takes the arguments of `dfn-ray pipeline`, `--set section.key=value` and `--dry-run` included.
To resume a stopped job, submit it again.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["pipeline", *sys.argv[1:]])
