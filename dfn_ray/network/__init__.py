"""The filtering network on one device: tokenize, forward, score. Knows neither Ray nor storage.

    frozen.py                  FrozenNetwork: loaded once on the driver, built anywhere, offline
      architecture.py            found as built-in, on the hub or in a folder
      layouts.py                 the layout of a folder or repository, by its small files
      open_clip_config.py        open_clip_config.json, read and checked
      open_clip_registry.py      open_clip's architectures and tags, read without importing it
      transformers_layout/       networks in transformers' layout, read and written
      weights.py                 checkpoints, read without running code from them
      tokenizer.py               a tokenizer that travels as data
    filtering_network.py       FilteringNetwork: pixels and tokens -> cosine similarity
      text_tower.py              captions encoded without their padding, where that gives the same embedding
    contrastive.py             both towers in training, the loss over all workers

Shapes in names: N samples of a chunk, B of a batch, H height, W width, C channels, L tokens, D width of
the embedding. The package itself imports nothing.
"""
