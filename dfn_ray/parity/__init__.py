"""Comparison of a recipe's scores with a reference, and the setting that differs.

    parity.py           dfn-ray doctor --reference: score samples, compare, search, report
    reference.py        scores by uid in a Parquet or npz file
    matched_samples.py  samples of the pool that the reference scores, in bounded memory
    variant.py          one way to score them: network, decoding, prompt
    variant_scores.py   the scores of a variant; embeddings are computed once per tower
    agreement.py        largest and mean difference, rank correlation, and the precision floor
    suspects.py         the usual suspects, and the search for those that close the gap

Everything runs on one machine, without Ray.
"""
