"""Training steps and their evaluation. Knows neither Ray nor MLflow.

loop          the training loop of a trial
evaluation    the loss of a model on a split
stack         trials that take their steps as one
graph         many steps in one launch on a GPU
gpu_memory    the GPU memory that a trial takes
pack_size     the number of trials that train best as one
timing        how long something takes on this machine
"""
