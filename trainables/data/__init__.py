"""The text that models train on.

corpus     the text as token ids
verse      the corpus that comes with the package
batches    batches of the text, and the random streams
"""
