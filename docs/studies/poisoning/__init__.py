"""Poison planted in instruction data, found from the run and deleted.

``python docs/studies/poison.py`` does it once, ``python docs/studies/llama.py`` over
seeds and by every other score.
"""
