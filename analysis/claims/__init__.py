"""Claims, and their tests on the trials.

claim           what all claims have in common
forms           the forms of claims, a class each
claim_file      files of claims
claim_errors    why a claim cannot be tested on the trials
configurations  the trials that differ only in their seed, and which of them a claim selects
pairing         the configurations that agree in all that a claim is not about
contrast        their differences by seed
contrasts       the contrasts of a claim, measured whenever trials have ended
one_sided       tests of a mean difference
noise           whether differences look as a t-test wants them
borrowing       what differences know of each other's variance, at any look
procedures      how differences are tested: at one look, or at any
decisions       the tests of all contrasts together, and the verdict
open_contrasts  which differences need more seeds for a verdict
power           chances that a test rejects with more seeds
arrivals        the seeds at which tests that hold at any look would decide
forecast        how many seeds a verdict would take
conclusions     verdicts, with the evidence for each
judging         claims judged on trials, once or again and again
evidence        how the evidence grew, seed by seed
tables          conclusions as tables and CSV files
"""
