"""What to train next. Knows neither Ray nor MLflow.

queue            the trials that wait and run
search           a queue that studies add suggestions to
study            an Optuna study of one configuration space
suggestion       one configuration of a study, and the state of its trials
samplers         the samplers and pruners, by name
warm_start       what a study learns from earlier trials
study_storage    where Optuna keeps the studies
"""
