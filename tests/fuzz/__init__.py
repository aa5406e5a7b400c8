"""A fuzzer of everything that reads files of strangers: `python -m tests.fuzz --inputs 10000`.

    case.py         an input and its check; the error for a broken promise
    mutate.py       damage: flips, cuts, splices, insertions, lengths at their extremes
    odd_text.py     strings and names of every script
    shards.py       properties of every shard, and comparison of the ways to read it
    tar_writer.py   tars of every flavour, by hand where `tarfile` writes none
    tars.py         target: tars against `tarfile`
    tar_damage.py   damaged tars and their neighbours
    sidecars.py     target: JSON members against `json`
    arrow_values.py columns of every Arrow type with its extremes
    parquets.py     target: Parquet files against DuckDB
    parquet_damage.py   damaged Parquet files and their other row groups
    pictures.py     images of every format and mode
    images.py       target: decoding against Pillow and OpenCV
    captions.py     target: tokens against open_clip
    uid_lists.py    target: uid lists against numpy
    recipes.py      target: TOML and `--set`
    networks.py     target: network folders
    folders.py      target: listings and class folders against `os.walk`
    finished_runs.py  runs to damage
    runs.py         target: the files of a run against the run as written
    targets.py      all targets and their shares
    worker.py       forked processes with limits of time and memory
    report.py       the table, and the folders of failed inputs

An input depends on seed and index alone. Half of the inputs are valid but odd, half are damaged.
"""
