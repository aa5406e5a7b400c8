"""The samples of a training run: which there are, in which order, and what the towers read.

index.py            which chunks the sources have, and how many samples each gives
order.py            the order of samples, a function of index, weights and seed
next_samples.py     the samples that workers about to start will read
group_samples.py    the samples of a group, in its order
feed.py             decoded, varied, captioned, tokenized: CPU tasks
caption_draws.py    the caption drawn at each visit of a sample
seen.py             which samples were seen; read_counts.py, how many and how many failed
"""
