"""The whole story as one resumable run: DFN -> filter -> train -> evaluate -> compare.

pipeline.py     the stages in order, each of which finishes or resumes itself
comparison.py   what the arms came to, as JSON, table and picture
"""
