"""Training on Ray Train: CLIP, or a filtering network, on subsets and pools, streamed in random order.

train_clip.py     the verb: index once, then start workers from the last checkpoint until samples_seen
  index.py          which chunks the sources have, and how many samples each gives
  plan.py           the order of samples, a pure function of index, weights and seed
  next_samples.py   what workers about to start will read, from where the run stands
  fit.py            one start of Ray Train
stream.py         the Ray Data chain; nothing else names Ray Data's operators
  samples.py        the samples of a group, in its order
  feed.py           decoded, varied, captioned, tokenised: CPU tasks
worker.py         the step loop of one worker
  parallel.py       DDP, FSDP2, compilation, checkpointing, applied from outside
  optimizer.py      AdamW, warm-up and cosine
  seen.py           which samples were seen
  checkpoint.py     commits on storage, and the decision from where to go on
  meter.py          what no checkpoint holds yet
  logs.py           TensorBoard, W&B, MLflow
"""
