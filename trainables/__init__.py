"""What a trial is, and how it is trained. Knows no MLflow; `worker.ray_trial` alone knows Ray.

config         the configuration of a trial, and its identity
variants       model classes and their settings, by name
data           the corpus, and batches of it
training       the training loop, alone or as a stack of trials
persistence    checkpoints, artifacts, and where they are stored
worker         trials that survive the process that trains them
model_check    whether a user's own model can be trained
own_modules    modules of the user's own
settings       what settings are made of
precision      the numbers of matrix products
errors         errors that a user can act on
files          files that are written whole
"""
