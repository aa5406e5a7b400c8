"""Zero-shot evaluation on Ray Data: what a network is worth on labelled and captioned images.

    evaluate.py     the verb: evaluate(recipe) -> metrics of each set
    sets.py         where a set is: folders, tars, Parquet, CLIP_benchmark's layout
    stream.py       the Ray Data chain, on dfn_ray.on_ray; nothing else here names Ray's operators
      embed.py        the network on a device: actors
    gather.py       embeddings on the driver, in the order of the set
    zero_shot.py    class embeddings from names and templates
    metrics.py      accuracy and recall, equal to CLIP_benchmark's, in bounded memory
    results.py      CLIP_benchmark's JSON, DataComp's eval_results.jsonl
      datacomp.py     DataComp's tasks: names, main metrics, groups

The package itself imports nothing, and sets, results and datacomp no torch, so that `--dry-run` answers at once.
"""
