"""What a sweep file describes: its trials, its studies and their cost.

planner        from a sweep file to its plan: overrides, expansion, and every check
overriding     values given on the command line, applied to a sweep
arms           the arms of a sweep: their settings, looked up and checked, and their trials
study_spec     what each study of a search may choose
feasibility    the configurations that satisfy the constraints of a search
plan           the plan itself: trials, studies, and how many trials there will be
run_names      names of runs, and the groups that share a colour
costs          costs of a trial that are known before it is trained
sizes          limits of the number of trials and of their memory
rungs          the steps at which a search may stop a trial
forecast       the trials that a search will add
trial_cost     the cost of trials, and what their evaluations read
estimate       time, memory and disk that a sweep takes
probing        times of training steps, measured or predicted
predicting      the same without timing: from what they compute
earlier        times of steps, from earlier trials on this machine
gpu_memory     GPU memory of packs, from shapes
gpu_time       seconds of packs on a GPU, by a model of its speed
"""
