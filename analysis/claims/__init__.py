"""Claims, and what the trials say of them.

claim           what all claims have in common
forms           the forms of claims, a class each
claim_file      files of claims
claim_errors    why trials cannot be held against a claim
pairing         the configurations that agree in all that a claim is not about
contrast        their differences by seed
contrasts       the contrasts of a claim
one_sided       tests of a mean difference
decisions       the tests of all contrasts together, and the verdict
power           what a test would say with more seeds
forecast        how many seeds a verdict would take
conclusions     all of this together
tables          conclusions as tables and CSV files
"""
