"""What a sweep file describes: its trials, its studies and their cost.

plan           from a sweep file to its trials, with every value checked
study_spec     what each study of a search may choose
feasibility    the configurations that satisfy the constraints of a search
sizes          limits of the number of trials and of their memory
rungs          the steps at which a search may stop a trial
estimate       time, memory and disk that a sweep takes
probing        times of training steps, measured or predicted
earlier        times of steps, from earlier trials on this machine
"""
