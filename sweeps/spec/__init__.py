"""The sweep file, as its author wrote it. Knows nothing of torch.

sweep_file     arms, resources, tracking: the file and its presets
search_spec    its section on the search
overrides      values given on the command line
constraints    expressions that the settings of a trial must satisfy
passwords      keeping passwords out of files and commands
"""
