"""Everything that a recipe names, looked at before anything starts: `--dry-run`, and the doctor, of every kind of recipe.

    finding.py    what a look came to: ok, CHANGE, or skip where it could not be done
    networks.py   architectures, tags, checkpoints, folders and repositories, by their small files
    hub.py        the small files of a repository on the hub, within 10 s, or from its cache
    recipes.py    what each kind of recipe names: pools, networks, lists, classes, sets, the run it would go on with

Neither Ray nor torch is loaded, no weights are read, nothing is written. The package itself imports nothing.
"""
