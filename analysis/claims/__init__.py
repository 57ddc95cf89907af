"""Claims, and their tests on the trials.

claim           what all claims have in common
forms           the forms of claims, a class each
claim_file      files of claims
claim_errors    why a claim cannot be tested on the trials
pairing         the configurations that agree in all that a claim is not about
contrast        their differences by seed
contrasts       the contrasts of a claim
one_sided       tests of a mean difference
decisions       the tests of all contrasts together, and the verdict
power           chances that a test rejects with more seeds
forecast        how many seeds a verdict would take
conclusions     all of this together
tables          conclusions as tables and CSV files
"""
