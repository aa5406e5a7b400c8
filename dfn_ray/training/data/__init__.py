"""The samples of a training run: their index, their order, and the towers' inputs.

    index.py            the chunks of the sources, and the samples of each
    order.py            the order of samples, a function of index, weights and seed
    next_samples.py     the samples that the next workers will read
    group_samples.py    the samples of a group, in its order
    feed.py             samples -> inputs in CPU tasks: decode, augment, caption, tokenize
    caption_draws.py    the caption drawn at each visit of a sample
    seen.py             the samples that were seen
    read_counts.py      counts of samples read and failed

The package itself imports nothing.
"""
