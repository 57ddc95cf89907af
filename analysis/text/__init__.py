"""What people read and write: names and settings are data here, never markup.

terminal        printed output: without control characters, also into a closed pipe
messages        errors and addresses in few words, without passwords
links           addresses of MLflow's pages
document        reports in Markdown and HTML, with their figures
shares          the error of verdicts, and percentages
csv_files       CSV files, of which no spreadsheet runs a formula
plain_yaml      YAML as plain data, in bounded time and memory
yaml_scalars    values without quotes in YAML
"""
