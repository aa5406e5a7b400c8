"""Training of CLIP or a filtering network on Ray Train, on subsets and pools in random order.

    train_clip.py      the verb: index once, then run workers from the last checkpoint to the end
    fit.py             one run of a group of workers in Ray Train
    worker_spec.py     what those workers are given
    chain.py           the Ray Data chain
    data/              index, order and contents of the samples
    step/              the loop of one worker: forward, backward, optimizer, logs
    checkpoint.py      commits to storage
    position.py        the checkpoint from which a run resumes
    result.py          the result of a run as text
    export_network.py  the network in transformers' layout

The package itself imports nothing.
"""
