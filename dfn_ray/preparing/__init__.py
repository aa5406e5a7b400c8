"""From samples to the networks' inputs, for filtering, training and evaluation alike.

    prepare.py                 rules, decoding, resizing, tokens, in CPU tasks
      rules.py                   the metadata rules
      statuses.py                marks and counts samples: scored, rejected, failed
      several_captions.py        several captions of a sample, and their combined score
    error_limits.py            limits on failed samples and bad shards
    fetch_networks.py          fetches the networks of a recipe, once, on the driver
    prompts.py                 class names and prompt templates
    embedding_fingerprint.py   the settings that change embeddings, as parts of a fingerprint

The package itself imports nothing.
"""
