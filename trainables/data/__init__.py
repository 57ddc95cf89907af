"""The text that models train on.

corpus     the text as token ids
verse      the embedded corpus, which needs no download
batches    batches of the text, and random streams
"""
