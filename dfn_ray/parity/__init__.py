"""Parity before money: do the recipe's scores equal published or golden ones, and if not, which setting is to blame?

    parity.py       dfn-ray doctor --reference: score some samples, compare, search, say
    reference.py    scores by uid in a Parquet or npz file
    samples.py      samples of the pool that the reference has, their bytes in bounded memory
    variant.py      one way to score them: network, decoding, prompt
    scoring.py      the scores of a variant, each tower's embeddings made once
    agreement.py    largest and mean difference, rank correlation, and the floor below which nothing is told apart
    suspects.py     the usual suspects, and the search for the one or the pair that closes the gap

On one machine, without Ray.
"""
