"""Training on Ray Train: CLIP, or a filtering network, on subsets and pools, streamed in random order.

train_clip.py       the verb: index once, then start workers from the last checkpoint until samples_seen
fit.py              one start of Ray Train
chain.py            the Ray Data chain
data/               index, order and contents of the samples
step/               the loop of one worker: forward, backward, optimizer, logs
checkpoint.py       commits on storage; position.py, from where a run resumes
export_network.py   the network in transformers' layout
"""
