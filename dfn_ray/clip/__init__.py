"""The filtering network on one device: decode, tokenise, forward, score. Knows neither Ray nor URIs.

    transform.py    what an image becomes before the network sees it (Pillow only)
    isolation.py    work that may kill its process, one lost item per crash
    decode.py       image bytes -> pixels, with a reason for each that fails
    architecture.py where a network comes from: built-in, hub, folder
    transformers_layout/    networks in transformers' layout, read and written
    layouts.py      which layout a folder or repository has, by its small files
    open_clip_files.py  open_clip's architectures, tags and configs, read without importing it
    weights.py      checkpoints, read without running code from them
    tokenizer.py    a tokenizer that travels as data
    network.py      load once on the driver (FrozenNetwork), build anywhere, offline
    text.py         tokenise; encode without the padding, where that is the same
    scoring.py      FilteringNetwork: pixels and tokens -> cosine similarity

Shapes in names: N samples of a chunk, B of a batch, H height, W width, C channels, L tokens, D width of
the embedding. The package itself imports nothing, so that decode tasks never pay for torch.
"""
