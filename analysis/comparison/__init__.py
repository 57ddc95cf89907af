"""The second study, live: a learnt bigram against a counted one."""
