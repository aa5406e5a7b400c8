"""Before the money is spent: is the cluster ready for a recipe, and what will it take?

    doctor.py       dfn-ray doctor: every check in order, each a Finding (dry_run.finding) as soon as it is known
      pool.py       listing, layout and faults of the pool
      networks.py   weights reachable and loadable
      rights.py     write, list, read, delete at a URI, from wherever it is called
      nodes.py      what every node says of itself, and what of that should change
      memory.py     the object store against what the recipe keeps in flight
      placement.py  whether nodes have, or an autoscaler can add, what the recipe asks for
      device.py     one batch on the scorer's device, halved until it fits
    plan.py         dfn-ray plan: pilot, estimate, printout
      pilot.py      a few shards read, decoded and scored, each alone
      limits.py     the same below Ray, for benchmarks too
      estimate.py   from the pilot to the whole pool, with its uncertainty
      costs.py      hours and money at n scorers

Nothing here writes into a run but the doctor's probe, which it removes. The package itself imports nothing, and what
runs on every node (nodes, rights) no torch.
"""
