"""Results in words, for the terminal, and reports.

claim_texts      conclusions
text_intervals   whether differences would hold on other text
verdicts         the verdicts on claims, with what they hold for
validity_texts   for which looks and claims conclusions hold
ranking_texts    rankings
search_texts     searches, and the report of what mattered
looks_text       when each claim was decided
methods_text     how a report was made
report           the report of a sweep
"""
