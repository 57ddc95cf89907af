"""Results in words, for the terminal, and reports.

claim_texts      conclusions
text_intervals   whether differences would hold on other text
validity_texts   for which looks and claims conclusions hold
ranking_texts    rankings
search_texts     searches, and the report of what mattered
methods_text     how a report was made
report           the report of a sweep
"""
