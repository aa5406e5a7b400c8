"""The whole pipeline as one resumable run: DFN -> filter -> train -> evaluate -> compare.

    pipeline.py     the stages in order, each of which resumes itself
    comparison.py   the results of the arms, as JSON and table

The package itself imports nothing.
"""
