"""The second study: a trained bigram model compared with a counted one.

measure        both models, their runs, and what is measured
cost           memory and time
counting       ways to count pairs
rank           the best and the nearest factorisation of the counts
conclusions    sentences, each computed from the numbers
figure         losses by width
report         the report
"""
