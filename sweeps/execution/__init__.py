"""Running a sweep.

service        a sweep from its start to its ranking
tune_runner    training the trials of the queue with Ray Tune
pack_events    from reports of packs to events of their trials
slots          how many packs may run at once
progress       what is shown while it trains
changes        how a sweep file differs from what was run under its name
overview       the sweeps of a state directory
verify_pack    comparing trials in a pack with the same trials alone
"""
