"""Checks of everything that a recipe names before anything starts: `--dry-run` and the doctor.

    finding.py        the result of a check: ok, CHANGE, or skip where it could not be made
    network_files.py  architectures, tags, checkpoints, folders and repositories, by their
                      small files
    hub_files.py      the small files of a repository on the hub, within 10 s, or from its cache
    shard_faults.py   bad shards of a listing against the recipe's limit
    recipes.py        the inputs of each kind of recipe: pools, networks, lists, classes, evaluation
                      sets, and the run it would resume

Neither Ray nor torch is loaded, no weights are read, nothing is written. The package itself imports
nothing.
"""
