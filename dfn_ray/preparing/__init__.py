"""From samples to the networks' inputs, for filtering, training and evaluation alike.

    prepare.py                 rules, decoding, resizing, tokens, in CPU tasks
      rules.py                   the metadata rules
      statuses.py                marks and counts samples: scored, rejected, failed
      several_captions.py        several captions of a sample, and their combined score

The package itself imports nothing.
"""
