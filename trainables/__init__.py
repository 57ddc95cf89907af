"""What a trial is, and how it is trained. Imports no MLflow; only `worker.ray_trial` imports Ray.

config           the configuration of a trial, and its identity
variants         model classes and their settings, by name
data             the corpus, and batches of it
training         the training loop, for one trial or a stack of them
persistence      checkpoints, artifacts, and where they are stored
worker           the process that trains trials, and resumes them
model_check      checks of users' own models before they are trained
model_contract   the contract that these checks hold a model to
own_modules      import of users' own modules
settings         base of all settings
precision        number formats of matrix products
errors           errors that a user can act on
files            atomic writes, and reading what users name
"""
