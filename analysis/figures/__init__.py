"""Figures of trials, claims and searches.

report_figures         all figures of a report, and the picture of a sweep's page
matplotlib_settings    matplotlib without the user's settings
style                  looks, sizes, and files that are the same byte for byte
data                   the tables that are drawn
settings               losses by setting
trials                 learning curves, and what a loss costs
fronts                 Pareto fronts of loss and training time
contrasts              the differences that a claim is about
evidence               the evidence for claims as trials are added
search                 losses of the configurations of a search
effort                 what a search cost
importance             which settings mattered
"""
