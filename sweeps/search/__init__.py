"""What to train next. Knows neither Ray nor MLflow.

queue             the trials that wait and run, and the source that adds more
search            a source: studies that share a budget
open_suggestions  configurations that are being trained, until their studies know how they end
study             suggests configurations of one space, and learns how they end
study_space       the configurations that a study may suggest
stored_study      a study as Optuna's storage has it
suggestion        one configuration of a study, and the state of its trials
samplers          Optuna's samplers, by name
pruners           Optuna's pruners, by name
warm_start        the results of earlier trials
replay            lets a study learn from earlier trials
study_storage     where Optuna keeps the studies
"""
