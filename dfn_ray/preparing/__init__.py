"""From samples to the networks' inputs, for filtering, training and evaluation alike.

    prepare.py                 rules, decoding, resizing, tokens
      rules.py                   the metadata rules
      statuses.py                marks and counts samples: scored, rejected, failed
      several_captions.py        several captions of a sample, and their combined score
    processes/                 worker processes that do so beside a network
    decode_tasks.py            tasks that do so on other nodes
    remaining.py               what is left to read while chunks arrive

The package itself imports nothing.
"""
