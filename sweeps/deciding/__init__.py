"""Deciding claims: further seeds for the configurations that open claims compare.

claims      the claims of a sweep, and whether its trials can decide them
evidence    the trials that claims are tested on, with their results so far
decider     a source of trials: suggests further seeds until the claims are decided
steps       which seeds come next
further     the trials with further seeds that a sweep already has
expected    how many further trials the open claims will take
results     the verdicts as lines
outlook     what `sweeps plan` says of the claims
pilot       the same from earlier sweeps
"""
