"""The command line, `dfn-ray VERB`.

    __main__.py         python -m dfn_ray.cli
    main.py             entry points: parse, run a verb, map errors to exit codes
    verbs.py            the verbs by section, their help and the completion script
    options.py          options of several verbs: URIs, a recipe, --set, --dry-run, --budget, --json
    recipe_argument.py  a recipe as the command line names it, loaded or, by a dry run, checked
    output.py           printouts: text, or one JSON document
    documents.py        results of verbs as plain values for --json
    try_verbs.py        demo, inspect
    filter_verbs.py     filter, score, select, materialize, export, verify
    compare_verbs.py    compare
    train_verbs.py      train, evaluate, pipeline
    cluster_verbs.py    doctor, plan, submit
    job.py              a verb over a recipe as a job of a Ray cluster
    submit.py           submits that job and follows its log

Verbs import what they need only when they run, so that --help loads neither Ray nor torch.
"""

from dfn_ray.cli.main import main, run

__all__ = ["main", "run"]
