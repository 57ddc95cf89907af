"""Running a sweep.

service        a sweep from its start to its ranking
run            the options of a run, what it has open, and its result
opening        opening the outbox, the delivery to MLflow and the studies
retirement     trials with results that are no longer part of the sweep
remaining      what is left to train
training       training it on this machine or a cluster
tune_runner    training the trials of the queue with Ray Tune
pack_events    from reports of packs to events of their trials
slots          how many packs may run at once
progress       what is shown while it trains
conclusion     the last events and the ranking
changes        how a sweep file differs from what was run under its name
overview       the sweeps of a state directory
verify_pack    comparing trials in a pack with the same trials alone
"""
