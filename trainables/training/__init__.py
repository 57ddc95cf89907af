"""Training steps and their evaluation. Imports neither Ray nor MLflow.

loop          the training loop of a trial
evaluation    the loss of a model on a split
optimizer     AdamW of a single trial
stack         several trials that take their steps together
adamw         the optimizer of such a stack
step_table    buffers that its steps read and write
graph         CUDA graphs: many steps in one launch on a GPU
gpu_memory    recognises errors by a lack of GPU memory
timing        times calls on this machine
"""
