"""Claims, and what the trials say of them.

claim          a claim, and files of claims
pairing        the configurations that agree in all that a claim is not about
contrasts      their differences by seed
decisions      the tests of these, and the verdict
forecast       how many seeds a verdict would take
conclusions    all of this together
"""
