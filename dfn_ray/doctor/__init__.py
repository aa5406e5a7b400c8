"""Is everything ready for a recipe, on the cluster that it will run on?

    doctor.py           dfn-ray doctor: every check in order, each a Finding as soon as it is known
    pool_check.py       listing, layout and faults of the pool
    network_check.py    weights reachable and loadable
    rights.py           write, list, read, delete at a URI, from wherever it is called
    nodes.py            what every node reports, and what of that should change
    object_store.py     the object store against what the recipe keeps in flight
    placement.py        the nodes that have, or an autoscaler that can add, what the recipe asks for
    one_batch.py        one batch on the scorer's device, halved until it fits

Nothing here writes into a run but the probe of rights, which it removes. The package itself imports nothing, and
what runs on every node (nodes, rights) no torch.
"""
