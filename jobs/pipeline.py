"""`dfn-ray pipeline` for a cluster: ray job submit --working-dir . -- python jobs/pipeline.py RECIPE.toml

Takes what `dfn-ray pipeline` takes, `--set section.key=value` and `--dry-run` included. Stop the job and
submit it again: it goes on where it stopped.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["pipeline", *sys.argv[1:]])
