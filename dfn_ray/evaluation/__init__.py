"""Zero-shot evaluation of a network on Ray Data, on labelled and captioned images.

    evaluate.py     the verb: evaluate_sets(recipe) -> Evaluation
    sets.py         locates a set: folders, tars, Parquet, CLIP_benchmark's layout
    chain.py        the Ray Data chains, on dfn_ray.on_ray; the only module with Ray operators
      embedder.py     the network on a device, as actors
    gather.py       embeddings on the driver, in the order of the set
    zero_shot.py    class embeddings from names and templates
    metrics.py      accuracy and recall, equal to CLIP_benchmark's, in bounded memory
    results.py      CLIP_benchmark's JSON, DataComp's eval_results.jsonl
      datacomp.py     DataComp's tasks: names, main metrics, groups

The package itself imports nothing, and sets, results and datacomp do not import torch, so that
`--dry-run` is fast.
"""
