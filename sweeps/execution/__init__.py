"""Running a sweep.

service        a sweep from its start to its ranking
tune_runner    training what the queue gives, with Ray Tune
progress       what is shown while it trains
changes        how a sweep file differs from what was run under its name
overview       the sweeps of a state directory
verify_pack    comparing trials in a pack with the same trials alone
"""
