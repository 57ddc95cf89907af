"""The sweep file, as its author wrote it. Imports no torch.

sweep_file     the file and its presets: arms, resources, tracking
search_spec    the section of the file on the search
decide_spec    the section of the file on the claims that further seeds decide
overrides      values given on the command line
constraints    expressions that the settings of a trial must satisfy
passwords      refuses passwords in sweep files and commands
"""
