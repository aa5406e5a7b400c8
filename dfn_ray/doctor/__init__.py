"""Checks that a recipe can run on the connected cluster: `dfn-ray doctor`.

    doctor.py           dfn-ray doctor: every check in order, each reported as soon as it is known
    pool_check.py       listing, layout and faults of the pool
    network_check.py    weights reachable and loadable
    permissions.py      write, list, read and delete at a URI, from the calling process
    node_facts.py       facts that every node reports, and the findings from them
    object_store.py     object store sizes against the bytes that the recipe keeps in flight
    placement.py        capacity for the recipe on the alive nodes or from the autoscaler
    one_batch.py        one batch on the scorer's device, halved until it fits

Nothing here writes into a run except the probe of permissions, which is removed. The package itself
imports nothing; the modules that run on every node (node_facts, permissions) do not import torch.
"""
