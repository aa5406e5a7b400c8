"""`dfn-ray pipeline` as a Ray job.

    ray job submit --working-dir . -- python jobs/pipeline.py RECIPE.toml

Takes the arguments of `dfn-ray pipeline`, including `--set section.key=value` and `--dry-run`. Stop
the job and submit it again: it resumes where it stopped.
"""

from __future__ import annotations

import sys

from dfn_ray.cli import main

if __name__ == "__main__":
    main(["pipeline", *sys.argv[1:]])
