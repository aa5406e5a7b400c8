"""The filtering network on one device: tokenize, forward, score; independent of Ray and storage.

    safetensors_header.py     names of tensors and the size of a file, without its tensors
    packed.py                 PackedNetwork: loaded once on the driver, built offline on any node
      architecture.py         the parts of a network: built in, on the hub or in a folder
      layouts.py              the layout of a folder or repository, by its file names
      small_files.py          the files of such a folder or repository
      origin.py               the parts of a network before it is built, whatever its layout
      open_clip_config.py     reads and checks open_clip_config.json
      open_clip_registry.py   open_clip's architectures and tags, without importing it
      transformers_layout/    reads and writes networks in transformers' layout
      download_errors.py      failed downloads: the user's mistake, or one that may pass
      siglip_vit.py           settings of SigLIP's image tower, without torch
      siglip_vision.py        that tower, built from them
      weights.py              reads checkpoints without running code from them
    tokenizer.py              tokenizers as data that can be sent to workers
      byte_pairs.py           CLIP's own tokenizer
      folder_tokenizer.py     tokenizers of transformers' layout
      stored_tokenizer.py     a network's own tokenizer in open_clip's layout
    filtering_network.py      FilteringNetwork: pixels and tokens -> cosine similarity
      text_tower.py           captions without their padding, if embeddings stay the same
      compute_environment.py  device, threads and versions, which decide the last bits of a score
    contrastive.py            both towers in training, and the loss over all workers

Shapes in names: N samples of a chunk, B of a batch, H height, W width, C channels, L tokens, D
width of the embedding. The package itself imports nothing.
"""
